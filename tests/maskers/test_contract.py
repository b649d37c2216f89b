"""The contract of every masker in conf/masker and every preset in conf/sparse_attention.

A new yaml is tested as soon as it exists. Each claim has the one problem that covers most of it:
`question` has several queries, rows of unequal padding and queries that see nothing; `prompts`
have no context, so that indexes are built from the queries' own keys. Decode steps (one query)
are held by the chunks of one query, which must select what the whole question selects.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from presets import SELECTING
from torch import Tensor
from torch.testing import assert_close

from sah.attention import (
    AttentionInputs,
    AttentionMask,
    Budget,
    DenseAttention,
    SparseAttention,
    dense_attention,
    gathered_attention,
    weighted_attention,
)
from sah.maskers.magic_pig import MagicPIG

CONF = Path(__file__).resolve().parents[2] / "conf"
MASKERS = sorted(path.stem for path in (CONF / "masker").glob("*.yaml"))
PRESETS = sorted(path.stem for path in (CONF / "sparse_attention").glob("*.yaml"))
# Values with which a masker selects everything, for up to 200 keys.
FULL_BUDGETS = ({"fraction": 1.0, "tokens": None}, {"fraction": 1.0}, {"p": 1.0}, {"tokens": 200})


def _yaml(name: str) -> Path:
    return CONF / "masker" / f"{name}.yaml"


def _full_budget(name: str) -> dict[str, Any] | None:
    parameters = OmegaConf.load(_yaml(name))
    for budget in FULL_BUDGETS:
        if all(parameter in parameters for parameter in budget):
            return budget
    return None


BUDGETED = [name for name in MASKERS if _full_budget(name)]
COUNTED = [name for name in MASKERS if {"tokens", "fraction"} <= set(OmegaConf.load(_yaml(name)))]
RANKED = [name for name in MASKERS if "share" in OmegaConf.load(_yaml(name))]

# 4 query heads on 2 key-value heads throughout; 200 keys unless stated.
PROBLEMS: dict[str, dict[str, Any]] = {
    "decode": {},
    # After a context of 176 keys. Queries of the last row see 0 to 15 keys.
    "question": {"queries": 24, "padding": (0, 90, 184)},
    "prompts": {"queries": 24, "keys": 24, "padding": (9, 0)},
}

Select = Callable[[AttentionInputs, AttentionMask], AttentionMask]
Make = Callable[..., Any]


@pytest.fixture(
    params=[
        *(f"masker={n}" for n in MASKERS),
        *(f"options={n}" for n in RANKED),
        *(f"preset={n}" for n in SELECTING),
    ]
)
def select(
    request: pytest.FixtureRequest,
    configured_masker: Make,
    preset: Make,
) -> Select:
    """A masker, one that selects shared units, or a preset's maskers one after the other."""
    kind, name = request.param.split("=")
    if kind == "masker":
        return configured_masker(name)
    if kind == "options":
        return configured_masker(name, share="group", unit=16)

    def fold(inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        for masker in preset(name).maskers.values():
            mask = masker(inputs, mask)
        return mask

    return fold


@pytest.fixture
def question(make_inputs: Make) -> AttentionInputs:
    inputs: AttentionInputs = make_inputs(**PROBLEMS["question"])
    return inputs


@pytest.fixture
def prompts(make_inputs: Make) -> AttentionInputs:
    inputs: AttentionInputs = make_inputs(**PROBLEMS["prompts"])
    return inputs


def _tensors(value: AttentionInputs | AttentionMask) -> dict[str, Tensor]:
    names = ["visible", *(field.name for field in dataclasses.fields(value))]
    return {
        name: tensor.clone() for name in names if isinstance(tensor := getattr(value, name), Tensor)
    }


def _assert_same(first: AttentionMask, second: AttentionMask) -> None:
    assert torch.equal(first.selected, second.selected)
    assert torch.equal(first.weights, second.weights)


def test_the_yamls_are_found() -> None:
    assert {"sink", "local", "causal", "oracle_top_k", "oracle_top_p"} <= set(MASKERS)
    assert {"sparse", "streaming_llm", "oracle_top_k"} <= set(SELECTING)


@pytest.mark.parametrize("problem", ["question", "prompts"])
def test_never_selects_a_key_the_query_cannot_see(
    select: Select, problem: str, make_inputs: Make, some_mask: Make
) -> None:
    inputs = make_inputs(**PROBLEMS[problem])
    for mask in (AttentionMask.empty(inputs), some_mask(inputs)):
        selected = select(inputs, mask)
        assert not (selected.selected & ~inputs.visible).any()
        assert not selected.weights[~inputs.visible.expand_as(selected.weights)].any()


def test_selects_something_for_every_query_that_sees_a_key(
    select: Select, prompts: AttentionInputs
) -> None:
    if isinstance(select, MagicPIG):
        pytest.skip("MagicPIG samples every key independently and may sample none")
    some = select(prompts, AttentionMask.empty(prompts)).selected.any(-1)
    assert torch.equal(some, prompts.visible.any(-1).expand_as(some))


def test_leaves_the_given_mask_and_inputs_unchanged(
    select: Select, question: AttentionInputs, some_mask: Make
) -> None:
    mask = some_mask(question)
    before = {**_tensors(question), **_tensors(mask)}
    select(question, mask)
    after = {**_tensors(question), **_tensors(mask)}
    assert before.keys() == after.keys() >= {"query", "key", "value", "visible", "selected"}
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


def test_keeps_the_keys_selected_before_and_their_weights(
    select: Select, question: AttentionInputs, some_mask: Make
) -> None:
    mask = some_mask(question)
    after = select(question, mask)
    assert after.selected[mask.selected].all()
    assert torch.equal(after.weights[mask.selected], mask.weights[mask.selected])


def test_weights_are_0_where_not_selected_and_at_least_1_elsewhere(
    select: Select, question: AttentionInputs
) -> None:
    mask = select(question, AttentionMask.empty(question))
    assert mask.weights.isfinite().all()
    assert (mask.weights[mask.selected] >= 1).all()
    assert (mask.weights[~mask.selected] == 0).all()


def test_the_same_inputs_give_the_same_mask_whatever_the_global_random_state(
    select: Select, make_inputs: Make, some_mask: Make
) -> None:
    first, second = (make_inputs(**PROBLEMS["question"]) for _ in range(2))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = select(first, some_mask(first))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    _assert_same(one, select(second, some_mask(second)))


@pytest.mark.parametrize("name", ["sink", "local", "causal"])
def test_a_masker_of_positions_only_ignores_everything_else(
    name: str, question: AttentionInputs, configured_masker: Make
) -> None:
    masker = configured_masker(name)
    assert masker.positions_only
    other = dataclasses.replace(
        question,
        query=torch.zeros_like(question.query),
        key=torch.zeros_like(question.key),
        value=torch.zeros_like(question.value),
        layer_idx=5,
        seed=9,
        index_seed=9,
    )
    _assert_same(*(masker(inputs, AttentionMask.empty(inputs)) for inputs in (question, other)))


def test_only_sink_local_and_causal_depend_on_positions_only(configured_masker: Make) -> None:
    alone = {n for n in MASKERS if getattr(configured_masker(n), "positions_only", False)}
    assert alone == {"sink", "local", "causal"}


def test_does_not_depend_on_how_the_queries_are_chunked(
    select: Select, question: AttentionInputs, make_inputs: Make
) -> None:
    whole = select(question, AttentionMask.empty(question))
    for size in (1, 7):
        chunks = make_inputs(**PROBLEMS["question"]).chunks(size)
        parts = [select(chunk, AttentionMask.empty(chunk)) for chunk in chunks]
        assert torch.equal(torch.cat([part.selected for part in parts], dim=2), whole.selected)
        # Products of other shapes round differently.
        weights = torch.cat([part.weights for part in parts], dim=2)
        assert_close(weights, whole.weights, rtol=1e-4, atol=0)


def test_does_not_depend_on_other_rows_of_the_batch(select: Select, make_inputs: Make) -> None:
    masks = []
    for padding, other_rows in (((10, 0), 0), ((10, 25), 5)):
        inputs = make_inputs(queries=4, padding=padding, other_rows=other_rows)
        masks.append(select(inputs, AttentionMask.empty(inputs)))
    assert torch.equal(masks[0].selected[0], masks[1].selected[0])
    assert torch.equal(masks[0].weights[0], masks[1].weights[0])


# Every pair of problem, budget and start; not every triple.
@pytest.mark.parametrize(
    ("problem", "budget", "start"),
    [
        ("decode", "fraction", "empty"),
        ("decode", "tokens", "some"),
        ("question", "fraction", "some"),
        ("question", "tokens", "empty"),
        ("prompts", "fraction", "some"),
        ("prompts", "tokens", "empty"),
    ],
)
@pytest.mark.parametrize("name", COUNTED)
def test_spends_its_budget_to_the_key_on_candidates_alone(
    name: str,
    problem: str,
    budget: str,
    start: str,
    configured_masker: Make,
    make_inputs: Make,
    some_mask: Make,
) -> None:
    changes: dict[str, Any] = {"share": "head"} if name in RANKED else {}
    if budget == "tokens":
        changes |= {"tokens": 16, "fraction": None}
    masker = configured_masker(name, **changes)
    assert isinstance(masker, Budget)
    inputs = make_inputs(**PROBLEMS[problem])
    mask = some_mask(inputs) if start == "some" else AttentionMask.empty(inputs)
    added = (masker(inputs, mask).selected & ~mask.selected).sum(-1)
    visible = inputs.visible.sum(-1).expand_as(added)
    left = visible - mask.selected.sum(-1)
    assert torch.equal(added, _budget(masker, visible).minimum(left))


def _budget(masker: Budget, visible: Tensor) -> Tensor:
    if masker.fraction is None:
        return torch.full_like(visible, masker.tokens or 0)
    # In whole numbers: a share of at most six decimals, rounded up.
    return -(-visible * round(masker.fraction * 10**6) // 10**6)


@pytest.mark.parametrize("share", ["group", "all"])
@pytest.mark.parametrize("unit", [1, 16])
@pytest.mark.parametrize("name", RANKED)
def test_heads_that_select_together_spend_one_budget_to_the_key(
    name: str, unit: int, share: str, configured_masker: Make, make_inputs: Make, some_mask: Make
) -> None:
    masker = configured_masker(name, share=share, unit=unit)
    inputs = make_inputs(**PROBLEMS["question"])
    mask = some_mask(inputs)
    added = masker(inputs, mask).selected & ~mask.selected
    for heads in ([0, 1], [2, 3]) if share == "group" else ([0, 1, 2, 3],):
        selected, left = added[:, heads].any(1), mask.candidates[:, heads].any(1)
        wanted = _budget(masker, inputs.visible.sum(-1)[:, 0])
        assert torch.equal(selected.sum(-1), wanted.minimum(left.sum(-1)))
        for head in heads:
            assert torch.equal(added[:, head], selected & mask.candidates[:, head])


@pytest.mark.parametrize("problem", ["question", "prompts"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in BUDGETED),
        *((name, {"share": "all", "unit": 16}) for name in RANKED),
    ],
)
def test_a_full_budget_selects_every_visible_key_with_weight_1_and_matches_sdpa(
    name: str, options: dict[str, Any], problem: str, configured_masker: Make, make_inputs: Make
) -> None:
    inputs = make_inputs(**PROBLEMS[problem])
    masker = configured_masker(name, **(_full_budget(name) or {}), **options)
    mask = masker(inputs, AttentionMask.empty(inputs))
    assert torch.equal(mask.weights, inputs.visible.expand_as(mask.weights).float())
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs.query,
        inputs.key,
        inputs.value,
        attn_mask=inputs.visible,
        scale=inputs.scaling,
        enable_gqa=True,
    ).where(inputs.visible.any(-1, keepdim=True), 0.0)
    for attention in (dense_attention, gathered_attention, weighted_attention):
        assert_close(attention(inputs, mask), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MASKERS)
def test_equal_configurations_are_equal_and_hash_alike(name: str, configured_masker: Make) -> None:
    first, second = configured_masker(name), configured_masker(name)
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize("name", MASKERS)
def test_a_masker_is_frozen(name: str, configured_masker: Make) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        configured_masker(name).tokens = 1


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_named_after_its_file(name: str, composed: Make) -> None:
    assert composed(f"sparse_attention={name}").name == name


@pytest.mark.parametrize("name", SELECTING)
def test_a_preset_selects_fewer_keys_than_dense_attention(
    name: str, preset: Make, make_inputs: Make
) -> None:
    # Of a few hundred keys AdaptiveSampling needs nearly all.
    inputs = make_inputs(keys=4000)
    assert preset(name).select(inputs).density().mean() < 0.99


@pytest.mark.parametrize("name", SELECTING)
def test_a_preset_applies_its_maskers_in_the_order_of_its_yaml(
    name: str, composed: Make, preset: Make, make_inputs: Make
) -> None:
    inputs, again = make_inputs(queries=2), make_inputs(queries=2)
    mask = AttentionMask.empty(again)
    for masker_name in composed(f"sparse_attention={name}").maskers:
        mask = preset(name).maskers[masker_name](again, mask)
    _assert_same(preset(name).select(inputs), mask)


def test_dense_is_the_attention_of_the_model_itself(composed: Make) -> None:
    config = composed("sparse_attention=dense")
    assert instantiate(config, _convert_="all") == DenseAttention(name="dense")


def test_custom_without_a_masker_says_how_to_add_one(composed: Make) -> None:
    with pytest.raises(Exception, match=r"\+masker@sparse_attention\.maskers"):
        instantiate(composed("sparse_attention=custom"), _convert_="all")


@pytest.mark.parametrize("name", MASKERS)
def test_custom_takes_any_masker(name: str, composed: Make, configured_masker: Make) -> None:
    config = composed("sparse_attention=custom", f"+masker@sparse_attention.maskers.mine={name}")
    attention = instantiate(config, _convert_="all")
    assert attention.maskers == {"mine": configured_masker(name)}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"maskers": {}}, "has no masker, pattern, evictor or rewriter; add one"),
        ({"maskers": {"quest": 3}}, "maskers.quest is not a masker: 3"),
        ({"dense_layers": [-1]}, "layer numbers from 0 on"),
        ({"dense_layers": ["0"]}, "layer numbers from 0 on"),
        ({"workspace_bytes": 1000}, r"at least 2\*\*20, got 1000"),
    ],
)
def test_an_invalid_attention_is_refused(
    arguments: dict[str, Any], said: str, configured_masker: Make
) -> None:
    valid = {"name": "mine", "maskers": {"causal": configured_masker("causal")}}
    with pytest.raises(ValueError, match=said):
        SparseAttention(**{**valid, **arguments})
