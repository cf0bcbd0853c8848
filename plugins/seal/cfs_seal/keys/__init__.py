"""Keys of Secure Boot."""
