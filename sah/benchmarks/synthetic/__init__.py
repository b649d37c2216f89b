"""Benchmarks generated here from published rules, beside RULER."""
