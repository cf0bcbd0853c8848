"""SELinux labels by the policy inside an image."""
