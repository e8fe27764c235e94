"""The image plugin of distill."""
