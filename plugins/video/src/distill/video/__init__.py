"""distill.video: causal video transformers with a cache, streaming, data, metrics, and methods for them."""
