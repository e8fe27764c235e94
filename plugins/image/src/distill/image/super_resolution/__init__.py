"""Super-resolution: degradations, pairs of pictures, residual shifting, metrics, tiles and `distill upscale`."""
