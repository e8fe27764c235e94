"""distill.studio: a local page on what distill makes."""
