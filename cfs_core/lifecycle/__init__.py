"""What is installed already: reading it, and (to come) changing it."""
