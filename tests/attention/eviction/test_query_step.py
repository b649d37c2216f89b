"""What a query step tells an evictor about one sequence, and about several in a batch."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.query_step import HeldKeys, QueryStep
from sah.attention.stacked.batch_rows import BatchRows
from sah.attention.stacked.row_lengths import RowLengths
from sah.attention.visibility import Visibility

KEYS, KEPT, CONTEXTS = [9, 5, 7], [4, 5, 2], [20, 5, 11]


@pytest.fixture
def step(make_inputs: Callable[..., Any]) -> QueryStep:
    """A step of three sequences of 9, 5 and 7 rows."""
    inputs = make_inputs(keys=9, padding=(0, 0, 0))
    kept = []
    for count, context in zip(KEPT, CONTEXTS, strict=True):
        alive = (torch.arange(context) < count).expand(1, 2, -1)
        kept.append(KeptKeys.of(alive, *torch.zeros(2, 1, 2, context, 8)))
    lengths = RowLengths(KEYS, torch.device("cpu"))

    def no_index(*_: Any) -> Any:
        raise AssertionError

    rows = BatchRows(lengths=lengths, seeds=(0, 1, 2), context_rows=KEPT, kept=kept, index=no_index)
    inputs = replace(inputs, rows=rows, visibility=Visibility.of_rows(lengths))
    return QueryStep(inputs=inputs, module=nn.Module(), layers=1)


def held_keys() -> HeldKeys:
    """All keys but the third, which is the first to be evicted in all sequences."""
    alive = torch.arange(9) < torch.tensor(KEYS).view(3, 1, 1)
    alive = alive & (torch.arange(9) != 2)
    return HeldKeys(alive=alive.expand(3, 2, -1))


def test_each_sequence_of_a_batch_counts_its_own_keys(step: QueryStep) -> None:
    assert step.contexts == CONTEXTS
    assert step.after_contexts == [5, 0, 5]
    assert step.weights[1, :, 5:].eq(0).all()
    for number in range(3):
        one = step.sequence(number)
        assert (one.context, one.after_context) == (
            CONTEXTS[number],
            step.after_contexts[number],
        )


def test_the_last_keys_are_those_of_each_sequence(step: QueryStep) -> None:
    last = step.last([3, 0, 9])
    for number, count in enumerate((3, 0, 9)):
        own = last[number, 0, : KEYS[number]].tolist()
        assert own == [place >= KEYS[number] - count for place in range(KEYS[number])]
        assert step.sequence(number).last([count]).tolist() == [[own]]


@pytest.mark.parametrize("budget", [4, 6, 8, 9, [3, 8, 5], [9, 4, 7], [1, 1, 1]], ids=str)
def test_the_best_keys_of_each_sequence_are_those_that_it_has_alone(
    step: QueryStep, budget: Any
) -> None:
    held = held_keys()
    scores: Tensor = torch.rand(3, 2, 9, generator=torch.Generator().manual_seed(0))
    scores[:, :, 3] = -torch.inf  # stays only while a sequence has no more rows than its budget
    scores[2, 0, 4] = torch.nan
    best = step.best(held, scores, budget)
    for number, keys in enumerate(KEYS):
        this = (slice(number, number + 1), slice(None), slice(keys))
        own = budget if isinstance(budget, int) else budget[number]
        alone = step.sequence(number).best(HeldKeys(alive=held.alive[this]), scores[this], own)
        assert torch.equal(best[this], alone)
        assert not best[number, :, keys:].any()
