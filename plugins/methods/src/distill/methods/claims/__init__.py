"""Claims of the methods, one file each: method against baseline, measured in one run."""
