"""Splitstreams, and how OCI images and layers lie in them."""
