"""The methods, one file each. A masker imports sah.attention and torch, nothing else."""
