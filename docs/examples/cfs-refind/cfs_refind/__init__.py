"""rEFInd for cfs."""
