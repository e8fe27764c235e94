"""Radiance fields for distill."""
