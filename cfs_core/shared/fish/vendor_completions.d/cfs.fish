# Completion of cfs: the code comes from the program, so that both are of one version.
_CFS_COMPLETE=fish_source cfs | source
