"""What a layer keeps of a context: rows, padding, and the way back to the whole sequence."""

import pytest
import torch

from sah.attention import AttentionInputs, AttentionMask, Visibility
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.whole import whole


def kept_of(*alive: str, each: int | None = None) -> KeptKeys:
    """Keep the keys marked `x`, one string a head; the values of key k are all k."""
    marks = torch.tensor([[[mark == "x" for mark in head] for head in alive]])
    value = torch.arange(marks.shape[-1]).float().view(1, 1, -1, 1).expand(1, len(alive), -1, 3)
    return KeptKeys.of(marks, value + 100, value, each)


def test_kept_rows_are_in_the_order_of_the_sequence() -> None:
    kept = kept_of(".x..xx", "x....x")
    assert kept.position.tolist() == [[[1, 4, 5], [0, 5, 5]]]
    assert kept.valid is not None
    assert kept.valid.tolist() == [[[True, True, True], [True, True, False]]]
    assert (kept.rows, kept.dropped, kept.per_head) == (3, 3, 2.5)
    assert kept.rows_of(kept.value)[0, :, :, 0].tolist() == [[1, 4, 5], [0, 5, 5]]


def test_heads_with_equally_many_keys_need_no_padding() -> None:
    assert kept_of(".x..xx", "x.x..x").valid is None


def test_a_known_number_of_keys_per_head_is_not_counted_again() -> None:
    known, counted = kept_of(".x..xx", "x.x..x", each=3), kept_of(".x..xx", "x.x..x")
    assert torch.equal(known.position, counted.position)
    assert (known.valid, known.per_head) == (counted.valid, counted.per_head)


def test_a_head_without_any_key_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one has to stay"):
        kept_of("x..", "...")


def inputs_over(kept: KeptKeys, after: int, queries: int) -> AttentionInputs:
    """Return a call whose rows are the kept ones and `after` keys after the context."""
    rows = kept.rows + after
    place = torch.arange(rows)
    visible = (place <= torch.arange(rows - queries, rows)[:, None]).expand(1, 4, -1, -1).clone()
    if kept.valid is not None:
        visible[..., : kept.rows] &= kept.valid.repeat_interleave(2, 1).unsqueeze(2)
    later = 1000.0 + torch.arange(after).view(1, 1, -1, 1).expand(1, 2, -1, 3)
    return AttentionInputs(
        query=torch.ones(1, 4, queries, 3),
        key=torch.cat([kept.rows_of(kept.key), later], 2),
        value=torch.cat([kept.rows_of(kept.value), later], 2),
        visibility=Visibility(visible),
        scaling=1.0,
        first_position=rows - queries,
        context_length=kept.rows,
        kept=kept,
    )


def test_the_whole_sequence_has_all_keys_and_the_selection_at_its_places() -> None:
    kept = kept_of(".x..xx", "x....x")
    inputs = inputs_over(kept, after=3, queries=2)
    selected = torch.zeros(1, 4, 2, 6, dtype=torch.bool)
    selected[0, 0, 1, [0, 2, 4]] = True  # keys 1, 5 and 7
    selected[0, 2, 0, [1]] = True  # key 5, whose place the padding repeats
    entire, mask = whole(inputs, AttentionMask(visible=inputs.visible, selected=selected))
    assert entire.value[0, 0, :, 0].tolist() == [0, 1, 2, 3, 4, 5, 1000, 1001, 1002]
    assert entire.key[0, 0, :6, 0].tolist() == [100, 101, 102, 103, 104, 105]
    assert entire.visible[0, 0].long().tolist() == [[1] * 8 + [0], [1] * 9]
    assert mask.selected[0, 0, 1].nonzero().flatten().tolist() == [1, 5, 7]
    assert mask.selected[0, 2, 0].nonzero().flatten().tolist() == [5]
    assert mask.selected.sum() == selected.sum()
    assert (entire.first_position, entire.context_length, entire.kept) == (7, 6, None)
    assert inputs.sequence_count.flatten().tolist() == entire.visible_count.flatten().tolist()


def test_weights_of_sampled_keys_go_to_their_places() -> None:
    kept = kept_of("x.x.", ".xx.")
    inputs = inputs_over(kept, after=1, queries=1)
    weight = torch.tensor([2.0, 3.0, 4.0]).view(1, 1, 1, 3)
    mask = AttentionMask.empty(inputs).add(inputs.visible, weight=weight)
    _, entire = whole(inputs, mask)
    assert entire.weights[0, 0, 0].tolist() == [2, 0, 3, 0, 4]
    assert entire.weights[0, 3, 0].tolist() == [0, 2, 3, 0, 4]


def test_without_eviction_nothing_changes() -> None:
    kept = kept_of("xx", "xx")
    inputs = AttentionInputs(
        query=torch.ones(1, 2, 1, 3),
        key=kept.key,
        value=kept.value,
        visibility=Visibility(torch.ones(1, 1, 1, 2, dtype=torch.bool)),
        scaling=1.0,
    )
    mask = AttentionMask.empty(inputs)
    same = whole(inputs, mask)
    assert same[0] is inputs
    assert same[1] is mask
