"""podman's and buildah's image store for cfs."""
