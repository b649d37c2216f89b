"""RULER (arXiv:2404.06654), generated at run time: one file per family of tasks."""

from sah.benchmarks.ruler.ruler import Ruler

__all__ = ["Ruler"]
