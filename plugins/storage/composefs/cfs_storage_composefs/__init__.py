"""composefs storage for cfs: EROFS images, fs-verity digests, repository."""
