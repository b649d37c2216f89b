"""The benchmarks, one file each, their scoring functions beside them."""
