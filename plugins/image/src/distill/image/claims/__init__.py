"""Claims that are measured on the teachers of this package."""
