"""Sparse attention as weighted masks: maskers select keys and weights, attention reads them.

A masker is any callable `(AttentionInputs, AttentionMask) -> AttentionMask`; see `Masker`.
`sah.attention.session` runs maskers inside a transformers model.
"""

from sah.attention.compute import dense_attention, gathered_attention, weighted_attention
from sah.attention.gather import SelectedKeys
from sah.attention.index import EncodedKeys, KeyBuffer, KeyIndex
from sah.attention.inputs import AttentionInputs
from sah.attention.mask import AttentionMask
from sah.attention.methods import DenseAttention, Masker, Matched, SparseAttention
from sah.attention.selection import Budget, select_top
from sah.attention.top_k import TopKMasker
from sah.attention.visibility import Visibility

__all__ = [
    "AttentionInputs",
    "AttentionMask",
    "Budget",
    "DenseAttention",
    "EncodedKeys",
    "KeyBuffer",
    "KeyIndex",
    "Masker",
    "Matched",
    "SelectedKeys",
    "SparseAttention",
    "TopKMasker",
    "Visibility",
    "dense_attention",
    "gathered_attention",
    "select_top",
    "weighted_attention",
]
