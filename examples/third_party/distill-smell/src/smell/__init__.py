"""Electronic-nose readings for distill."""
