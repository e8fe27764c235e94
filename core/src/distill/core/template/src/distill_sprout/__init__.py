"""A plugin of distill: closed curves."""
