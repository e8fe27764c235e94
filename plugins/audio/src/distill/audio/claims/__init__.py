"""Claims of the methods on sound, one file each: method against baseline, measured in one run."""
