"""SAH: sparse-attention and KV-cache experiments, composed with Hydra."""

__version__ = "0.1.0"
