"""Methods on sound as data, one file a paper."""
