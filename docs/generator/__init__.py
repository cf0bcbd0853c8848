"""Pages of the reference and man pages, made from the code."""
