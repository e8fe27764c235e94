"""Methods on clips as data, one file a paper."""
