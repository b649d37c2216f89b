"""Presses of kvpress, and a user's own ones, keep the keys that their own `compress` keeps."""

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from zoo import small_model

from sah.attention.eviction.context_layer import ContextLayer
from sah.attention.eviction.witness import Witness
from sah.errors import ConfigurationError
from sah.evictors.expected_attention import ExpectedAttention
from sah.evictors.keydiff import KeyDiff
from sah.evictors.knorm import KNorm
from sah.evictors.lagkv import LagKV
from sah.evictors.leverage import Leverage
from sah.evictors.presses.kvpress_scorer import KVPressScorer
from sah.evictors.sink_and_recent import SinkAndRecent
from sah.evictors.snapkv import SnapKV
from sah.evictors.tova import TOVA
from sah.evictors.wrappers.adakv import AdaKV
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder
from sah.models.tiny import TinyModel, tiny_tokenizer
from sah.results import fingerprint

if importlib.util.find_spec("kvpress") is None:
    pytest.skip("needs pip install --no-deps kvpress", allow_module_level=True)

TOKENS = 200
# Of LagKV, whose scores have ties, all equal ones are kept or evicted.
FRACTION = 0.371
WITNESS = Witness(
    calls=True, last_queries=64, rotary=True, future=ExpectedAttention(tokens=1).witness.future
)

# Presses with their arguments, and the evictor that keeps the same keys.
PRESSES: dict[str, tuple[dict[str, Any], Any]] = {
    "KnormPress": ({}, KNorm(fraction=FRACTION)),
    "KeyDiffPress": ({}, KeyDiff(fraction=FRACTION)),
    "StreamingLLMPress": ({"n_sink": 6}, SinkAndRecent(fraction=FRACTION, sinks=6)),
    "SnapKVPress": (
        {"window_size": 16, "kernel_size": 3},
        SnapKV(fraction=FRACTION, window=16, kernel=3),
    ),
    "TOVAPress": ({}, TOVA(fraction=FRACTION)),
    "LagKVPress": ({"lag_size": 48}, LagKV(fraction=FRACTION, partition=48)),
    "LeverageScorePress": ({"sketch_dimension": 12}, Leverage(fraction=FRACTION, sketch=12)),
    "ExpectedAttentionPress": ({}, ExpectedAttention(fraction=FRACTION)),
    "NonCausalAttnPress": ({"chunk_size": 64}, None),
    "CompactorPress": ({}, None),
    "CURPress": ({}, None),
    "CapPress": ({}, None),
    "RandomPress": ({}, None),
}


@dataclasses.dataclass(frozen=True)
class Read:
    layer: ContextLayer
    given: dict[str, Any]
    rotary: Any


@pytest.fixture(scope="module")
def reads(layers_of: Callable[..., list[ContextLayer]]) -> list[Read]:
    """The layers of a context, and what a hook of kvpress gets of them."""
    loaded = TinyModel(layers=2).load()
    given: list[dict[str, Any]] = []
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda _, args, keywords: given.append(keywords), with_kwargs=True
        )
        for layer in loaded.model.model.layers
    ]
    layers = layers_of(loaded, TOKENS, witness=WITNESS)
    for hook in hooks:
        hook.remove()
    rotary = loaded.model.model.rotary_emb
    return [Read(layer, one, rotary) for layer, one in zip(layers, given, strict=True)]


def kept_by(press: Any, read: Read) -> Tensor:
    """Return which keys the press keeps by its own `compress`, [B, G, K]."""
    layer = read.layer
    module: Any = layer.witnessed.module
    module.rotary_emb = read.rotary
    try:
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(layer.seed)
            hidden = read.given["hidden_states"]
            key, _ = press.compress(module, hidden, layer.key, layer.value, None, read.given)
    finally:
        del module.rotary_emb
    return (layer.key.unsqueeze(3) == key.unsqueeze(2)).all(-1).any(-1)


@pytest.mark.parametrize("name", PRESSES)
def test_a_press_keeps_the_keys_that_its_compress_keeps(name: str, reads: list[Read]) -> None:
    arguments, _ = PRESSES[name]
    evictor = KVPressScorer(press=f"kvpress.{name}", arguments=arguments, fraction=FRACTION)
    theirs = evictor._class(**arguments, compression_ratio=1 - FRACTION)
    for read in reads:
        assert torch.equal(evictor.at_context(read.layer), kept_by(theirs, read))


@pytest.mark.parametrize("name", [name for name, (_, own) in PRESSES.items() if own is not None])
def test_a_press_keeps_the_keys_of_the_evictor_of_the_same_method(
    name: str, reads: list[Read]
) -> None:
    arguments, own = PRESSES[name]
    evictor = KVPressScorer(press=f"kvpress.{name}", arguments=arguments, fraction=FRACTION)
    for read in reads:
        assert torch.equal(evictor.at_context(read.layer), own.at_context(read.layer))


@pytest.mark.parametrize("tokens", range(6, TOKENS, 17))
def test_a_press_that_scores_by_its_compression_ratio_gets_that_of_the_budget(
    tokens: int, reads: list[Read]
) -> None:
    evictor = KVPressScorer(press="kvpress.StreamingLLMPress", tokens=tokens)
    own = SinkAndRecent(tokens=tokens)
    layer = reads[1].layer
    assert torch.equal(evictor.at_context(layer), own.at_context(layer))


def test_adakv_builds_on_a_press(reads: list[Read]) -> None:
    snap = {"window_size": 16, "kernel_size": 3}
    press = KVPressScorer(press="kvpress.SnapKVPress", arguments=snap, fraction=FRACTION)
    for read in reads:
        alive = AdaKV(of=press).at_context(read.layer)
        own = AdaKV(of=SnapKV(fraction=FRACTION, window=16, kernel=3)).at_context(read.layer)
        assert torch.equal(alive, own)


@pytest.fixture
def own_press(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write a press with a body of its class, and return its dotted path."""

    def write(body: str) -> str:
        (tmp_path / "my_presses.py").write_text(
            "from dataclasses import dataclass\n"
            "from kvpress import ScorerPress\n"
            "@dataclass\n"
            "class MyPress(ScorerPress):\n"
            "    power: float = 1.0\n"
            f"    {body}\n"
        )
        monkeypatch.syspath_prepend(tmp_path)
        return "my_presses.MyPress"

    yield write
    sys.modules.pop("my_presses", None)


SCORE = "def score(self, module, hidden_states, keys, values, attentions, kwargs):\n        "


def test_a_press_of_ones_own_is_used(own_press: Callable[[str], str], reads: list[Read]) -> None:
    path = own_press(SCORE + "return values.norm(dim=-1) ** self.power")
    layer = reads[1].layer
    norms = layer.value.norm(dim=-1)
    for power, largest in ((1.0, True), (-1.0, False)):
        evictor = KVPressScorer(press=path, arguments={"power": power}, tokens=9)
        kept = norms.topk(9, largest=largest).indices
        assert torch.equal(
            evictor.at_context(layer), torch.zeros_like(norms).scatter(2, kept, 1.0) > 0
        )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("pass", "has no score method; choose"),
        ("def compress(self, *given): return given[2:4]", r"its own compress\)"),
        ("def post_init_from_model(self, model): pass", r"its own post_init_from_model\)"),
    ],
)
def test_a_press_that_is_more_than_its_scores_is_refused(
    body: str, said: str, own_press: Callable[[str], str]
) -> None:
    with pytest.raises(ValueError, match=f"press='my_presses.MyPress' .*{said}"):
        KVPressScorer(press=own_press(body), tokens=1)


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ("return keys.norm(dim=-1)[0]", r"scores \[2, 200\] instead of \[1, 2, 200\]"),
        ("return keys.norm(dim=-1) * float('nan')", r"not numbers \(NaN\)"),
        (
            "return kwargs['cache_position']",
            r"reads kwargs\['cache_position'\], but after the shared prefill there are only "
            "hidden_states and position_embeddings",
        ),
        ("return kwargs.get('past_key_values')", r"reads kwargs\['past_key_values'\]"),
        ("assert attentions is not None, 'it reads attentions'", "200 keys .*it reads attentions"),
    ],
)
def test_a_press_that_cannot_score_a_layer_is_refused_by_name(
    score: str, said: str, own_press: Callable[[str], str], reads: list[Read]
) -> None:
    evictor = KVPressScorer(press=own_press(SCORE + score), tokens=1)
    with pytest.raises(ConfigurationError, match=f"my_presses.MyPress cannot score .*{said}"):
        evictor.at_context(reads[0].layer)


@pytest.mark.parametrize(
    ("press", "said"),
    [
        ("AdaKVPress", "use evictor=adakv"),
        ("CriticalKVPress", "use evictor=criticalkv"),
        ("CriticalAdaKVPress", "use evictor=adakv, with criticalkv as its `of`"),
        ("ChunkKVPress", "use evictor=chunkkv"),
        ("BlockPress", "use evictor=block_keydiff"),
        ("SimLayerKVPress", "use evictor=simlayerkv"),
        ("DuoAttentionPress", "use evictor=duo_attention"),
        ("PyramidKVPress", "use evictor=pyramidkv"),
        ("ObservedAttentionPress", "use evictor=h2o"),
        ("ThinKPress", "use rewriter=think"),
        ("KVzipPress", "use evictor=kvzip"),
        ("KeyRerotationPress", "is not a ScorerPress; choose"),
        ("QFilterPress", "needs the model before it scores"),
        ("ScorerPress", "has no score method"),
        ("SnapKvPress", "cannot be imported .kvpress has no SnapKvPress.; give the dotted path"),
    ],
)
def test_a_press_that_is_not_a_scorer_is_refused_with_the_evictor_of_the_method(
    press: str, said: str
) -> None:
    with pytest.raises(ValueError, match=f"press='kvpress.{press}' .*{said}"):
        KVPressScorer(press=f"kvpress.{press}", tokens=1)


@pytest.mark.parametrize("path", ["SnapKVPress", "no_such_module.Press", "os.path.NoPress"])
def test_a_path_that_cannot_be_imported_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=f"press='{path}' cannot be imported .*kvpress.SnapKV"):
        KVPressScorer(press=path, tokens=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"compression_ratio": 0.5}, "compression_ratio would be a second budget; remove it"),
        ({"windowsize": 3}, "unexpected keyword argument 'windowsize'; .*window_size, kernel_size"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        KVPressScorer(press="kvpress.SnapKVPress", arguments=arguments, tokens=1)


def test_a_context_too_short_for_the_press_is_refused_in_its_words(
    context_layers: Callable[..., list[ContextLayer]],
) -> None:
    evictor = KVPressScorer(press="kvpress.SnapKVPress", tokens=4)
    with pytest.raises(ConfigurationError, match=r"50 keys of layer 0: .*greater than the window"):
        evictor.at_context(context_layers(50)[0])


@pytest.mark.parametrize("name", ["SnapKVPress", "TOVAPress", "LeverageScorePress"])
def test_a_press_that_computes_other_queries_than_the_model_is_refused(
    name: str, reads: list[Read]
) -> None:
    layer = reads[0].layer
    other = dataclasses.replace(layer.witnessed, queries=layer.witnessed.queries * 1.1)
    changed = dataclasses.replace(layer, witnessed=other)
    assert KVPressScorer(press="kvpress.KnormPress", tokens=5).at_context(changed).any()
    with pytest.raises(ConfigurationError, match="other queries than LlamaAttention has"):
        KVPressScorer(press=f"kvpress.{name}", tokens=5).at_context(changed)


@pytest.mark.parametrize(("model_type", "is_known"), [("qwen3", True), ("olmo2", False)])
def test_a_model_whose_query_norm_kvpress_does_not_know_is_refused(
    model_type: str, is_known: bool, layers_of: Callable[..., list[ContextLayer]]
) -> None:
    model = LanguageModel(small_model(model_type), PromptEncoder(tiny_tokenizer(), None))
    layer = layers_of(model, 60, witness=WITNESS)[0]
    evictor = KVPressScorer(press="kvpress.TOVAPress", tokens=5)
    if is_known:
        assert torch.equal(evictor.at_context(layer), TOVA(tokens=5).at_context(layer))
    else:
        with pytest.raises(ConfigurationError, match="other queries than Olmo2Attention has"):
            evictor.at_context(layer)


def test_kvpress_changes_nothing_outside_of_its_presses(reads: list[Read]) -> None:
    KVPressScorer(press="kvpress.ExpectedAttentionPress", tokens=5).at_context(reads[0].layer)
    assert not hasattr(reads[0].layer.witnessed.module, "rotary_emb")
    assert "kvpress" not in sys.modules
    functions = ALL_ATTENTION_FUNCTIONS.values()
    assert not any(function.__module__.startswith("kvpress") for function in functions)


def test_the_version_of_kvpress_and_the_press_are_part_of_the_identity(
    compose: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def identity(press: str, version: str) -> str:
        monkeypatch.setattr("sah.content.digests._version", lambda name: version)
        option = "+evictor@sparse_attention.evict.x=kvpress"
        return fingerprint(
            compose("attention=custom", option, f"sparse_attention.evict.x.press={press}")
        )

    first = identity("kvpress.KnormPress", "0.5.5")
    assert identity("kvpress.KnormPress", "0.5.5") == first
    assert identity("kvpress.KnormPress", "0.5.6") != first
    assert identity("my_presses.MyPress", "0.5.5") != first


def test_another_version_of_kvpress_than_composed_is_refused() -> None:
    content = {"packages": {"kvpress": "0.4.0"}}
    with pytest.raises(ValueError, match=r"it was .*0\.4\.0.*run it again"):
        KVPressScorer(press="kvpress.KnormPress", tokens=1, content=content)
