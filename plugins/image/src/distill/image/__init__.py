"""distill.image: diffusers' networks as denoisers, picture data, picture metrics."""
