"""Extractive question answering over the CIA World Factbook."""

from sah.benchmarks.factbook.factbook import Factbook

__all__ = ["Factbook"]
