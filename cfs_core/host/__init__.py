"""Files and directories of the host, as somebody named them."""
