"""Decoding in batches of rows: questions about one context or several."""

from sah.models.batch.answers import answer_rows
from sah.models.batch.row import Row

__all__ = ["Row", "answer_rows"]
