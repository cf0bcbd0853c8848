"""One run of cfs: what it has is made and joined here, for the command line and for any other program."""
