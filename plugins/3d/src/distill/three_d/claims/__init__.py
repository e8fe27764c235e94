"""Claims of the methods on scenes, scans and their latents, one file each: method against baseline, in one run."""
