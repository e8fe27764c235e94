"""The methods plugin of distill."""
