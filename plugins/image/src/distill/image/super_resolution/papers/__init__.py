"""Papers of super-resolution as methods."""
