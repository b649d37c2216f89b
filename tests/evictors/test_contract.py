"""The contract of every evictor in conf/evictor; a new yaml is tested as soon as it exists."""

import dataclasses
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from presets import EVICTING
from torch import Tensor

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness

CONF = Path(__file__).resolve().parents[2] / "conf"
EVICTORS = sorted(path.stem for path in (CONF / "evictor").glob("*.yaml"))

# Not so many keys in each head, by their docstrings.
BY_LAYER = {"pyramidkv", "chunkkv"}
BY_HEAD = {"adakv"}

# 200 keys, more than every window; a context may also be shorter than all of them.
LENGTHS = (200, 3, 1)

Layers = Callable[..., list[ContextLayer]]
Make = Callable[..., Any]


@pytest.fixture
def evictor_of(composed: Make, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Return the evictor of a yaml in conf/evictor with another budget."""

    def make(name: str, **budget: Any) -> Any:
        composition = composed(
            "sparse_attention=custom", f"+evictor@sparse_attention.evict.x={name}"
        )
        config = OmegaConf.create(OmegaConf.to_container(composition, resolve=False)).evict.x
        return instantiate(_completed(config, budget, tmp_path_factory), _convert_="all")

    return make


def _completed(config: Any, budget: dict[str, Any], paths: pytest.TempPathFactory) -> Any:
    """Set the budget where it is said, and give a file or a press to what needs one."""
    if "heads" in config.keys():  # noqa: SIM118 - `in` is false for a missing value
        config.heads = str(paths.mktemp("heads") / "heads.tsv")
        Path(config.heads).write_text("0.1\t0.9\n0.8\t0.2\n")
    if "press" in config.keys():  # noqa: SIM118
        if importlib.util.find_spec("kvpress") is None:
            pytest.skip("needs pip install --no-deps kvpress")
        config.press = "kvpress.KnormPress"
    place = config
    while "of" in place:
        place = place.of
    if "fraction" in place and budget:
        place.update({"tokens": None, "fraction": None, **budget})
    return config


def _has_budget(name: str) -> bool:
    config = OmegaConf.load(CONF / "evictor" / f"{name}.yaml")
    return "fraction" in config or any(
        "evictor@of" in str(one) for one in config.get("defaults", [])
    )


BUDGETED = [name for name in EVICTORS if _has_budget(name)]


def _tensors(layer: ContextLayer) -> list[Tensor]:
    seen = [layer.key, layer.value, layer.witnessed.queries, layer.witnessed.received]
    seen += [part for moments in layer.witnessed.future.values() for part in vars(moments).values()]
    return [tensor.clone() for tensor in seen if tensor is not None]


def test_the_yamls_are_found() -> None:
    assert {"knorm", "snapkv", "adakv", "simlayerkv"} <= set(EVICTORS)
    assert set(EVICTORS) - set(BUDGETED) == {"simlayerkv", "duo_attention"}


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", EVICTORS)
def test_says_for_every_key_whether_it_stays_and_keeps_one_in_each_head(
    name: str, length: int, evictor_of: Make, context_layers: Layers
) -> None:
    for layer in context_layers(length):
        alive = evictor_of(name).at_context(layer)
        assert alive.shape == layer.key.shape[:3]
        assert alive.dtype == torch.bool
        assert alive.any(-1).all()


@pytest.mark.parametrize("budget", [{"fraction": 0.29}, {"tokens": 58}], ids=str)
@pytest.mark.parametrize("name", BUDGETED)
def test_keeps_exactly_its_budget(
    name: str, budget: dict[str, Any], evictor_of: Make, context_layers: Layers
) -> None:
    evictor = evictor_of(name, **budget)
    for layer in context_layers(200):
        kept = evictor.at_context(layer).sum(-1)  # B G
        wanted = evictor.budget(layer)
        if name not in BY_LAYER:
            assert wanted == 58
        if name == "chunkkv":
            assert (kept == 40).all()
        elif name in BY_HEAD:
            assert kept.sum() == 2 * wanted
        else:
            assert (kept == wanted).all()


@pytest.mark.parametrize("budget", [{"fraction": 1.0}, {"tokens": 1000}], ids=str)
@pytest.mark.parametrize("name", BUDGETED)
def test_a_full_budget_keeps_all_keys(
    name: str, budget: dict[str, Any], evictor_of: Make, context_layers: Layers
) -> None:
    for length in (200, 3):
        for layer in context_layers(length):
            assert evictor_of(name, **budget).at_context(layer).all()


@pytest.mark.parametrize("name", EVICTORS)
def test_is_a_function_of_the_layer_alone(
    name: str, evictor_of: Make, context_layers: Layers
) -> None:
    layer = context_layers(200)[1]
    before = _tensors(layer)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = evictor_of(name).at_context(layer)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(evictor_of(name).at_context(layer), first)
    assert all(map(torch.equal, before, _tensors(layer)))


@pytest.mark.parametrize("name", EVICTORS)
def test_works_in_half_precision(name: str, evictor_of: Make, context_layers: Layers) -> None:
    layer = context_layers(200)[1]
    half = dataclasses.replace(
        layer,
        key=layer.key.bfloat16(),
        value=layer.value.bfloat16(),
        witnessed=dataclasses.replace(
            layer.witnessed,
            module=_in_half_precision(layer.witnessed.module),
            queries=layer.witnessed.queries.bfloat16(),
        ),
    )
    same = evictor_of(name).at_context(half) == evictor_of(name).at_context(layer)
    assert same.float().mean() > 0.9


def _in_half_precision(module: Any) -> Any:
    projection = torch.nn.Linear(*reversed(module.o_proj.weight.shape), bias=False)
    projection.weight = torch.nn.Parameter(module.o_proj.weight.detach().bfloat16())
    other = torch.nn.Module()
    other.o_proj = projection
    return other


@pytest.mark.parametrize("name", EVICTORS)
def test_its_witness_asks_for_all_that_it_needs(
    name: str, evictor_of: Make, context_layers: Layers
) -> None:
    evictor = evictor_of(name)
    asked = context_layers(200, evictor.witness)[0]
    everything = context_layers(200)[0]
    assert torch.equal(evictor.at_context(asked), evictor.at_context(everything))
    assert evictor.witness | Witness() == evictor.witness


@pytest.mark.parametrize("name", EVICTORS)
def test_an_evictor_is_frozen_and_equal_configurations_are_equal(
    name: str, evictor_of: Make
) -> None:
    first = evictor_of(name)
    assert dataclasses.replace(first) == first
    assert hash(first) == hash(dataclasses.replace(first))
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.tokens = 1


@pytest.mark.parametrize("name", EVICTING)
def test_a_preset_evicts_and_is_named_after_its_file(
    name: str, composed: Make, context_layers: Layers, tmp_path: Path
) -> None:
    composition = composed(f"sparse_attention={name}")
    config = OmegaConf.create(OmegaConf.to_container(composition, resolve=False))
    if name == "duo_attention":
        config.evict[name].heads = str(tmp_path / "heads.tsv")
        Path(config.evict[name].heads).write_text("0.1\t0.9\n0.8\t0.2\n")
    attention = instantiate(config, _convert_="all")
    assert attention.name == name
    assert not attention.maskers
    alive = attention.evictor.at_context(context_layers(200)[1])
    # A layer of 200 keys is too short to be lazy, or for a head to stream.
    assert (alive.float().mean() < 0.5) == (name not in ("simlayerkv", "duo_attention"))
