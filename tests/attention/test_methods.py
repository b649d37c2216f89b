"""SparseAttention: maskers per layer, and masks that all layers of a step share."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from sah.attention import AttentionInputs, AttentionMask, SparseAttention
from sah.attention.session import AttentionSession
from sah.errors import ConfigurationError
from sah.maskers.causal import Causal
from sah.maskers.local import Local
from sah.maskers.oracle_top_k import OracleTopK
from sah.maskers.random_sampling import RandomSampling
from sah.maskers.sink import Sink
from sah.models.language_model import LanguageModel

CONTEXT = [1 + (7 * n) % 390 for n in range(60)]
QUESTION = [5 + (11 * n) % 380 for n in range(12)]


def sparse(*maskers: Any, **options: Any) -> SparseAttention:
    return SparseAttention(
        name="mine", maskers={str(n): masker for n, masker in enumerate(maskers)}, **options
    )


WINDOW = sparse(Sink(tokens=2), Local(tokens=6))


def logits(model: LanguageModel, ids: Sequence[int], mask: Tensor | None = None) -> Tensor:
    with torch.inference_mode():
        output = model.model(input_ids=torch.tensor(ids), attention_mask=mask).logits
    return output  # type: ignore[no-any-return]


def test_dense_layers_keep_the_model_s_attention(tiny: LanguageModel) -> None:
    observed: list[int] = []

    def output(dense_layers: list[int]) -> Tensor:
        session = AttentionSession(
            sparse(Local(tokens=1), dense_layers=dense_layers),
            seed=0,
            observers=(lambda inputs, mask, output: observed.append(inputs.layer_idx),),
        )
        with session.attached(tiny.model):
            return logits(tiny, [CONTEXT])

    dense = logits(tiny, [CONTEXT])
    assert_close(output([0, 1]), dense, atol=1e-4, rtol=0)
    assert (output([0]) - dense).abs().max() > 0.1
    assert observed == [1]


def test_a_dense_layer_that_the_model_does_not_have_is_an_error(tiny: LanguageModel) -> None:
    session = AttentionSession(sparse(Causal(), dense_layers=[1, 2, 9]), seed=0)
    attached = session.attached(tiny.model)
    with pytest.raises(ConfigurationError, match=r"names the layers \[2, 9\].* layers are 0 to 1"):
        attached.__enter__()


def test_layers_may_have_other_maskers(tiny: LanguageModel) -> None:
    densities: dict[int, float] = {}
    layers: dict[str, Any] = {"1": {"some": Sink(tokens=2), "last": Local(tokens=3)}}
    session = AttentionSession(
        sparse(Local(tokens=1), layers=layers),
        seed=0,
        observers=(
            lambda inputs, mask, output: densities.update(
                {inputs.layer_idx: int(mask.selected[0, 0, -1].sum())}
            ),
        ),
    )
    with session.attached(tiny.model):
        logits(tiny, [CONTEXT])
    assert densities == {0: 1, 1: 5}


def test_a_layer_set_to_dense_equals_one_in_dense_layers(tiny: LanguageModel) -> None:
    outputs = []
    for options in (
        {"dense_layers": [0]},
        {"layers": {"0": "dense"}},
        {"layers": {"L0-0": "dense"}},
    ):
        session = AttentionSession(sparse(Local(tokens=1), **options), seed=0)
        with session.attached(tiny.model):
            outputs.append(logits(tiny, [CONTEXT]))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("span", ["2-4", "L2-4", "l2-4"])
def test_a_range_of_layers_includes_both_ends(span: str) -> None:
    attention = sparse(Local(tokens=1), layers={span: "dense"})
    assert [layer for layer in range(8) if attention.maskers_at(layer) is None] == [2, 3, 4]


def test_every_16th_layer_is_dense_as_many_as_the_model_has(tiny: LanguageModel) -> None:
    attention = sparse(Local(tokens=1), dense_layers="0::16")
    assert [n for n in range(80) if attention.maskers_at(n) is None] == [0, 16, 32, 48, 64]
    attention.check(tiny.model.config)
    other = sparse(Local(tokens=1), dense_layers="1::2", layers={"0": {"all": Causal()}})
    assert [n for n in range(6) if other.maskers_at(n) is None] == [1, 3, 5]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": {"4-2": "dense"}}, "'4-2' is neither a layer nor a range"),
        ({"layers": {"all": "dense"}}, "'all' is neither a layer nor a range"),
        ({"layers": {"-1": "dense"}}, "'-1' is neither"),
        ({"layers": {"1-3": "dense", "3": "dense"}}, "layers.3: layer 3 is named twice"),
        ({"layers": {"1": "dense"}, "dense_layers": [1]}, "layer 1 is named twice"),
        ({"layers": {"17-20": "dense"}, "dense_layers": "2::16"}, "layer 18 is named twice"),
        ({"dense_layers": "0:16"}, "every n-th layer as FIRST::N, such as 0::16; got '0:16'"),
        ({"dense_layers": "0::0"}, "got '0::0'"),
        ({"layers": {"1": "sparse"}}, "must be `dense` or name its maskers, got 'sparse'"),
        ({"layers": {"1": {}}}, "must be `dense` or name its maskers"),
        ({"layers": {"1": {"quest": 3}}}, "layers.1.quest is not a masker: 3"),
    ],
)
def test_invalid_layers_are_refused(options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        sparse(Local(tokens=1), **options)


def test_equal_maskers_that_reuse_selections_are_refused() -> None:
    with pytest.raises(ValueError, match=r"maskers.a equals another masker .*every=2"):
        SparseAttention(
            name="twice",
            maskers={name: OracleTopK(tokens=3, every=2) for name in ("a", "b")},
        )
    SparseAttention(name="twice", maskers={n: OracleTopK(tokens=3) for n in ("a", "b")})


class FirstKey:
    """Reads key 0 and records the layers in which it runs."""

    positions_only = True

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        self.asked.append(inputs.layer_idx)
        return mask.add(inputs.visible_rank == 1)


def test_a_masker_of_positions_only_runs_once_per_step(tiny: LanguageModel) -> None:
    first = FirstKey()
    session = AttentionSession(sparse(first, RandomSampling(tokens=2)), seed=0)
    with session.attached(tiny.model):
        for _ in range(2):
            logits(tiny, [QUESTION])
        logits(tiny, [CONTEXT])
    # Consecutive steps of equal shape share as well.
    assert first.asked == [0, 0]


def test_a_masker_of_positions_only_after_another_masker_runs_in_every_layer(
    tiny: LanguageModel,
) -> None:
    first = FirstKey()
    session = AttentionSession(sparse(RandomSampling(tokens=2), first), seed=0)
    with session.attached(tiny.model):
        logits(tiny, [QUESTION])
    assert first.asked == [0, 1]


def test_steps_with_equal_shapes_but_different_padding_are_not_confused(
    tiny: LanguageModel,
) -> None:
    masks = [torch.tensor([[0] * padding + [1] * (12 - padding)]) for padding in (0, 5, 2)]

    def outputs(sessions: list[AttentionSession]) -> list[Tensor]:
        found = []
        for session, mask in zip(sessions, masks, strict=True):
            with session.attached(tiny.model):
                found.append(logits(tiny, [QUESTION], mask))
        return found

    one = outputs([AttentionSession(WINDOW, seed=0)] * 3)
    each_its_own = outputs([AttentionSession(WINDOW, seed=0) for _ in range(3)])
    for shared, own in zip(one, each_its_own, strict=True):
        assert torch.equal(shared, own)
