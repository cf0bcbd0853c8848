"""Seals images: a signed UKI that names the image's own digest, and keys for Secure Boot."""
