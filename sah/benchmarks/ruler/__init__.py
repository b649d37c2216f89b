"""RULER (arXiv:2404.06654), generated here: one file a family of tasks."""

from sah.benchmarks.ruler.ruler import Ruler

__all__ = ["Ruler"]
