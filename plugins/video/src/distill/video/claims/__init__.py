"""Claims of the methods on clips, one file each: method against baseline, measured in one run."""
