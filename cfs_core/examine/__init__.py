"""Looking at a disk that exists: what is on it, and what is wrong with it."""
