"""Extractive question answering over the CIA World Factbook."""

from sah.benchmarks.factbook.benchmark import Factbook

__all__ = ["Factbook"]
