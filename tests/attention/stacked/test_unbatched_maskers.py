"""A masker is computed row by row unless it says itself that it is batched."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from sah.attention import EncodedKeys, SparseAttention, TopKMasker
from sah.maskers.oracle_top_k import OracleTopK

LIMITS = [6, 2, 7, 4]
SEEN = []


@dataclass(frozen=True, kw_only=True)
class Batched(OracleTopK):
    batched: ClassVar[bool] = True

    def scores(self, inputs):
        SEEN.append((inputs.query.shape[0], inputs.rows is not None))
        return super().scores(inputs)


@dataclass(frozen=True, kw_only=True)
class Inherits(Batched):
    """Says nothing itself, so that it need not know of batches."""


@dataclass(frozen=True, kw_only=True)
class SmallKeys(TopKMasker):
    """The keys of smallest norm. It would work on a batch, but does not say so."""

    def scores(self, inputs):
        SEEN.append((inputs.query.shape[0], inputs.rows is not None))
        norms = inputs.key.norm(dim=-1).repeat_interleave(inputs.group_size, dim=1)
        return -norms.unsqueeze(2).expand(-1, -1, inputs.query.shape[2], -1)


@dataclass(frozen=True, kw_only=True)
class BatchedSmallKeys(SmallKeys):
    batched: ClassVar[bool] = True


def attention(**maskers):
    return SparseAttention(name="mine", maskers=maskers)


def decoded(answered, tiny, masker, *, together=True):
    """What the rows leave, and what the masker was given after the questions."""
    SEEN.clear()
    rows = answered(tiny, attention(masker=masker), LIMITS, together=together)
    questions = len(LIMITS) * tiny.model.config.num_hidden_layers
    return rows, SEEN[questions:]


@pytest.mark.parametrize("unbatched", [Inherits(tokens=9), SmallKeys(tokens=9)], ids=type)
def test_without_batched_of_its_own_a_masker_gets_one_row_at_a_time(answered, tiny, unbatched):
    rows, seen = decoded(answered, tiny, unbatched)
    assert set(seen) == {(1, False)}
    # A row is fed all of its tokens but the last.
    assert len(seen) == tiny.model.config.num_hidden_layers * sum(n - 1 for n in LIMITS)
    alone, _ = decoded(answered, tiny, unbatched, together=False)
    for row, single in zip(rows, alone, strict=True):
        row.assert_as(single)


@pytest.mark.parametrize(
    ("unbatched", "batched"),
    [
        (Inherits(tokens=9), Batched(tokens=9)),
        (SmallKeys(tokens=9), BatchedSmallKeys(tokens=9)),
    ],
    ids=["inherited", "unsaid"],
)
def test_a_batched_masker_gets_all_rows_at_once_with_the_same_result(
    answered, tiny, unbatched, batched
):
    together, seen = decoded(answered, tiny, batched)
    # Rows leave after 1, 3, 5 and 6 steps.
    layers = tiny.model.config.num_hidden_layers
    by_step = [4, 3, 3, 2, 2, 1]
    assert seen == [(rows, True) for rows in by_step for _ in range(layers)]
    one_by_one, _ = decoded(answered, tiny, unbatched)
    for row, single in zip(together, one_by_one, strict=True):
        row.assert_as(single)


def test_one_unbatched_masker_makes_its_layer_row_by_row(answered, tiny):
    mixed = SparseAttention(
        name="mixed",
        maskers={"batched": Batched(tokens=5)},
        layers={"1": {"batched": Batched(tokens=5), "unbatched": SmallKeys(tokens=9)}},
    )
    SEEN.clear()
    rows = answered(tiny, mixed, [2, 2, 2, 2], together=True)
    # Questions: 4 rows, one masker in layer 0 and two in layer 1. Then one step.
    assert SEEN[12:] == [(4, True), *8 * [(1, False)]]
    alone = answered(tiny, mixed, [2, 2, 2, 2], together=False)
    for row, single in zip(rows, alone, strict=True):
        row.assert_as(single)


class Listed:
    """An index that cannot stand beside others."""

    def __init__(self, key, value):
        self.key = key

    @property
    def length(self):
        return self.key.shape[2]

    @property
    def nbytes(self):
        return self.key.nbytes

    def append(self, key, value):
        self.key = torch.cat([self.key, key], dim=2)

    def rewind(self, length):
        self.key = self.key[:, :, :length]


@dataclass(frozen=True, kw_only=True)
class ByList(BatchedSmallKeys):
    batched: ClassVar[bool] = True

    def scores(self, inputs):
        inputs.index(self, Listed)
        return super().scores(inputs)


@dataclass(frozen=True, kw_only=True)
class ByCodes(BatchedSmallKeys):
    batched: ClassVar[bool] = True

    def scores(self, inputs):
        inputs.index(self, lambda *first: EncodedKeys(lambda key, _: [key], *first, dim=2))
        return super().scores(inputs)


@pytest.mark.parametrize(
    ("masker", "reason"),
    [
        (ByList(tokens=9), "ByList is `batched`, but its Listed is not a StackableIndex; add"),
        (ByCodes(tokens=9), "EncodedKeys sets no `row_tensors`.* or remove `batched`"),
    ],
    ids=type,
)
def test_an_index_that_cannot_be_batched_is_refused_with_the_way_out(
    answered, tiny, masker, reason
):
    with pytest.raises(TypeError, match=reason):
        answered(tiny, attention(masker=masker), LIMITS, together=True)
    # Alone it works.
    answered(tiny, attention(masker=masker), LIMITS, together=False)
