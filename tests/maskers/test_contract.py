"""Contract of every masker in conf/masker and every preset in conf/sparse_attention.

A new yaml is tested on arrival.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor
from torch.testing import assert_close

from sah.attention import (
    AttentionInputs,
    AttentionMask,
    Budget,
    DenseAttention,
    SparseAttention,
    dense_attention,
    weighted_attention,
)
from sah.maskers.magic_pig import MagicPIG

CONF = Path(__file__).resolve().parents[2] / "conf"
MASKERS = sorted(path.stem for path in (CONF / "masker").glob("*.yaml"))
PRESETS = sorted(path.stem for path in (CONF / "sparse_attention").glob("*.yaml"))
FOLDS = [name for name in PRESETS if name not in ("custom", "dense")]

# Which parameter of a masker makes it select everything, and its value for up to 200 keys.
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

# H 4 query heads on G 2 key-value heads throughout.
PROBLEMS: dict[str, dict[str, Any]] = {
    "decode": {},
    "question": {"queries": 7},
    "two_padded_rows": {"queries": 5, "padding": (0, 31)},
    "whole_prompt": {"queries": 24, "keys": 24},
    "whole_padded_prompts": {"queries": 24, "keys": 24, "padding": (9, 0)},
}

Select = Callable[[AttentionInputs, AttentionMask], AttentionMask]
Make = Callable[..., Any]


@pytest.fixture(params=[*(f"masker={n}" for n in MASKERS), *(f"preset={n}" for n in FOLDS)])
def select(
    request: pytest.FixtureRequest,
    configured_masker: Make,
    preset: Make,
) -> Select:
    """A masker, or a preset's maskers one after the other."""
    kind, name = request.param.split("=")
    if kind == "masker":
        return configured_masker(name)

    def fold(inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        for masker in preset(name).maskers.values():
            mask = masker(inputs, mask)
        return mask

    return fold


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> dict[str, Any]:
    return PROBLEMS[request.param]


def _tensors(value: AttentionInputs | AttentionMask) -> dict[str, Tensor]:
    names = ["visible", *(field.name for field in dataclasses.fields(value))]
    return {
        name: tensor.clone() for name in names if isinstance(tensor := getattr(value, name), Tensor)
    }


def _assert_same(first: AttentionMask, second: AttentionMask) -> None:
    assert torch.equal(first.selected, second.selected)
    assert torch.equal(first.weights, second.weights)


def test_maskers_and_presets_are_found() -> None:
    assert {"sink", "local", "causal", "oracle_top_k", "oracle_top_p"} <= set(MASKERS)
    assert {"sparse", "streaming_llm", "oracle_top_k"} <= set(FOLDS)


def test_never_selects_a_key_the_query_cannot_see(
    select: Select, problem: dict[str, Any], make_inputs: Make, some_mask: Make
) -> None:
    inputs = make_inputs(**problem)
    for mask in (AttentionMask.empty(inputs), some_mask(inputs)):
        selected = select(inputs, mask)
        assert not (selected.selected & ~inputs.visible).any()
        assert not selected.weights[~inputs.visible.expand_as(selected.weights)].any()


def test_selects_something_for_every_query_that_sees_a_key(
    select: Select, problem: dict[str, Any], make_inputs: Make
) -> None:
    if isinstance(select, MagicPIG):
        pytest.skip("MagicPIG samples each key by itself, and by chance none")
    inputs = make_inputs(**problem)
    some = select(inputs, AttentionMask.empty(inputs)).selected.any(-1)
    assert torch.equal(some, inputs.visible.any(-1).expand_as(some))


def test_leaves_the_given_mask_and_inputs_unchanged(
    select: Select, problem: dict[str, Any], make_inputs: Make, some_mask: Make
) -> None:
    inputs = make_inputs(**problem)
    mask = some_mask(inputs)
    before = {**_tensors(inputs), **_tensors(mask)}
    select(inputs, mask)
    after = {**_tensors(inputs), **_tensors(mask)}
    assert before.keys() == after.keys() >= {"query", "key", "value", "visible", "selected"}
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


def test_selected_keys_stay_selected_with_their_weight(
    select: Select, problem: dict[str, Any], make_inputs: Make, some_mask: Make
) -> None:
    inputs = make_inputs(**problem)
    mask = some_mask(inputs)
    after = select(inputs, mask)
    assert after.selected[mask.selected].all()
    assert torch.equal(after.weights[mask.selected], mask.weights[mask.selected])


def test_weights_are_0_where_nothing_is_read_and_at_least_1_elsewhere(
    select: Select, problem: dict[str, Any], make_inputs: Make
) -> None:
    inputs = make_inputs(**problem)
    mask = select(inputs, AttentionMask.empty(inputs))
    assert mask.weights.isfinite().all()
    assert (mask.weights[mask.selected] >= 1).all()
    assert (mask.weights[~mask.selected] == 0).all()


def test_same_inputs_give_the_same_mask(
    select: Select, problem: dict[str, Any], make_inputs: Make, some_mask: Make
) -> None:
    first, second = make_inputs(**problem), make_inputs(**problem)
    torch.manual_seed(1)
    one = select(first, some_mask(first))
    torch.manual_seed(2)
    _assert_same(one, select(second, some_mask(second)))


@pytest.mark.parametrize("name", ["sink", "local", "causal"])
def test_maskers_of_positions_only_ignore_queries_keys_and_seeds(
    name: str, problem: dict[str, Any], make_inputs: Make, configured_masker: Make
) -> None:
    masker = configured_masker(name)
    assert masker.positions_only
    first = make_inputs(**problem)
    nothing = torch.zeros_like
    second = dataclasses.replace(
        first,
        query=nothing(first.query),
        key=nothing(first.key),
        value=nothing(first.value),
        layer_idx=5,
        seed=9,
        index_seed=9,
    )
    _assert_same(*(masker(inputs, AttentionMask.empty(inputs)) for inputs in (first, second)))


def test_no_other_masker_claims_positions_only(configured_masker: Make) -> None:
    alone = {n for n in MASKERS if getattr(configured_masker(n), "positions_only", False)}
    assert alone == {"sink", "local", "causal"}


def test_uses_no_global_random_generator(
    select: Select, make_inputs: Make, some_mask: Make
) -> None:
    inputs = make_inputs(queries=3)
    before = torch.get_rng_state()
    select(inputs, some_mask(inputs))
    assert torch.equal(torch.get_rng_state(), before)


def test_does_not_depend_on_how_the_queries_are_chunked(
    select: Select, problem: dict[str, Any], make_inputs: Make
) -> None:
    inputs = make_inputs(**problem)
    whole = select(inputs, AttentionMask.empty(inputs))
    for size in (1, 3):
        chunks = make_inputs(**problem).chunks(size)
        parts = [select(chunk, AttentionMask.empty(chunk)) for chunk in chunks]
        assert torch.equal(torch.cat([part.selected for part in parts], dim=2), whole.selected)
        # Products of other shapes round otherwise.
        weights = torch.cat([part.weights for part in parts], dim=2)
        assert_close(weights, whole.weights, rtol=1e-4, atol=0)


def test_does_not_depend_on_other_rows_of_the_batch(select: Select, make_inputs: Make) -> None:
    masks = []
    for padding, other_rows in (((10, 0), 0), ((10, 25), 5)):
        inputs = make_inputs(queries=4, padding=padding, other_rows=other_rows)
        masks.append(select(inputs, AttentionMask.empty(inputs)))
    assert torch.equal(masks[0].selected[0], masks[1].selected[0])
    assert torch.equal(masks[0].weights[0], masks[1].weights[0])


@pytest.mark.parametrize("started", [False, True], ids=["from_nothing", "on_top_of_others"])
@pytest.mark.parametrize("budget", [{}, {"tokens": 16, "fraction": None}], ids=["yaml", "tokens"])
@pytest.mark.parametrize("name", COUNTED)
def test_a_budget_is_spent_to_the_key_on_candidates_alone(
    name: str,
    budget: dict[str, Any],
    started: bool,
    problem: dict[str, Any],
    configured_masker: Make,
    make_inputs: Make,
    some_mask: Make,
) -> None:
    masker = configured_masker(name, **budget)
    assert isinstance(masker, Budget)
    inputs = make_inputs(**problem)
    mask = some_mask(inputs) if started else AttentionMask.empty(inputs)
    added = masker(inputs, mask).selected & ~mask.selected
    for row, head, query in torch.cartesian_prod(*map(torch.arange, mask.selected.shape[:3])):
        visible = int(inputs.visible[row, 0, query].sum())
        wanted = masker.tokens
        if masker.fraction is not None:
            # In whole numbers: a share of at most six decimals, rounded up.
            wanted = -(-visible * round(masker.fraction * 10**6) // 10**6)
        left = visible - int(mask.selected[row, head, query].sum())
        assert int(added[row, head, query].sum()) == min(wanted, left)


@pytest.mark.parametrize("name", BUDGETED)
def test_a_full_budget_selects_every_visible_key_with_weight_1_and_matches_sdpa(
    name: str, problem: dict[str, Any], configured_masker: Make, make_inputs: Make
) -> None:
    inputs = make_inputs(**problem)
    masker = configured_masker(name, **_full_budget(name))
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
    for output in (dense_attention(inputs, mask), weighted_attention(inputs, mask)):
        assert_close(output, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", MASKERS)
def test_equal_configurations_are_equal_and_hash_alike(name: str, configured_masker: Make) -> None:
    first, second = configured_masker(name), configured_masker(name)
    assert first == second
    assert hash(first) == hash(second)


@pytest.mark.parametrize("name", MASKERS)
def test_a_masker_s_configuration_cannot_be_changed(name: str, configured_masker: Make) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        configured_masker(name).tokens = 1


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_named_after_its_file(name: str, composed: Make) -> None:
    assert composed(f"sparse_attention={name}").name == name


@pytest.mark.parametrize("name", FOLDS)
def test_a_preset_selects_fewer_keys_than_dense_attention(
    name: str, preset: Make, make_inputs: Make
) -> None:
    # Of a few hundred keys AdaptiveSampling needs nearly all.
    inputs = make_inputs(keys=4000)
    assert preset(name).select(inputs).density().mean() < 0.99


@pytest.mark.parametrize("name", FOLDS)
def test_a_preset_applies_its_maskers_in_the_order_they_are_written(
    name: str, composed: Make, preset: Make, make_inputs: Make
) -> None:
    inputs, again = make_inputs(queries=2), make_inputs(queries=2)
    mask = AttentionMask.empty(again)
    for masker_name in composed(f"sparse_attention={name}").maskers:
        mask = preset(name).maskers[masker_name](again, mask)
    _assert_same(preset(name).select(inputs), mask)


def test_dense_is_the_model_s_own_attention(composed: Make) -> None:
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
        ({"maskers": {}}, "would read nothing"),
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
