"""Settings and fixtures of all tests: no network, checked shapes, a tiny model, made-up results."""

import dataclasses
import json
import os
import signal
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

# Before anything imports transformers or huggingface_hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Two test processes share two cores: more threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hydra
import orjson
import pytest
from hydra import initialize_config_dir
from hydra.utils import instantiate
from jaxtyping import install_import_hook
from omegaconf import DictConfig

# Registers the resolvers that the files of conf/ use.
import hydra_plugins.sah.config  # noqa: F401
from sah.results.schema import Provenance, Result, Timing
from sah.types import Prediction

# In tests/plugins, which pyproject.toml puts on the path.
pytest_plugins = ("fake_gpus", "forked_runs", "forked_scripts", "slurm_cluster")

ROOT = Path(__file__).resolve().parents[1]

# A shell ignores it for what runs in the background, and run.py would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Wrong shapes in annotations, or tensors that do not fit them, fail the test.
install_import_hook(
    [
        "sah.attention.gather",
        "sah.attention.index",
        "sah.attention.inputs",
        "sah.attention.mask",
        "sah.attention.selection",
        "sah.attention.selection_cpu",
        "sah.attention.gather_fused",
        "sah.attention.top_k",
        "sah.attention.compute",
        *(
            f"sah.maskers.shared.{name}"
            for name in ("hyperplanes", "lookup", "packed_bits", "pages")
        ),
        # Those that annotate shapes; types of plain parameters are the maskers' own to check.
        *(
            f"sah.maskers.{path.stem}"
            for path in (ROOT / "sah/maskers").glob("*.py")
            if "jaxtyping" in path.read_text(encoding="utf-8")
        ),
        "sah.metric_logging.metrics",
        "sah.attention.eviction.context_layer",
        "sah.attention.eviction.kept",
        "sah.attention.eviction.query_step",
        "sah.attention.eviction.received",
        "sah.attention.eviction.rewriter",
        "sah.attention.eviction.rotary",
        "sah.attention.stacked.stacked_evictions",
        *(
            ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for folder in ("sah/evictors", "sah/evictors/streaming")
            for path in (ROOT / folder).glob("*.py")
        ),
        "sah.evictors.wrappers.projection",
        "sah.patterns",
        "sah.rewriters",
    ],
    "beartype.beartype",
)


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The tiny model. Tests must leave it as it is."""
    from sah.models.tiny import TinyModel

    return TinyModel().load()


@pytest.fixture(scope="session")
def calibrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAH_CACHE with a calibration of the tiny model for every method that needs one.

    For up to 16 layers of it, but 3 for DuoAttention. Drawn at random, 40 bits for HashAttention
    so that a word is filled in part.
    """
    import torch
    from safetensors.torch import save_file

    home = tmp_path_factory.mktemp("cache")
    generator = torch.Generator().manual_seed(0)
    channels = {
        f"model.layers.{layer}.self_attn.{kind}_proj": [
            torch.randperm(16, generator=generator).tolist() for _ in range(heads)
        ]
        for layer in range(16)
        for kind, heads in (("qk", 4), ("q", 4), ("k", 2))
    }
    networks = {}
    for layer in range(16):
        for kind in ("query", "key"):
            for number, (inner, outer) in enumerate([(16, 12), (12, 40)]):
                name = f"layers.{layer}.{kind}.{number}"
                weight = torch.randn(4, inner, outer, generator=generator)
                networks[f"{name}.weight"] = weight
                networks[f"{name}.bias"] = torch.randn(4, outer, generator=generator)
    for folder in ("double_sparsity", "duo_attention", "hash_attention"):
        (home / "calibration" / folder).mkdir(parents=True)
    (home / "calibration/double_sparsity/tiny.json").write_text(json.dumps(channels))
    save_file(networks, home / "calibration/hash_attention/tiny.safetensors")
    (home / "calibration/duo_attention/tiny.tsv").write_text("0.1\t0.9\n0.8\t0.2\n0.7\t0.3\n")
    return home


@pytest.fixture(scope="module")
def calibrated(calibrations: Path) -> Iterator[None]:
    """Methods that need a calibration find one of the tiny model, while the module's tests run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SAH_CACHE", str(calibrations))
        yield


@pytest.fixture
def compose() -> Callable[..., DictConfig]:
    """Compose the configuration from overrides, as the command line does."""

    def call(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return hydra.compose("config", list(overrides))

    return call


@pytest.fixture(scope="session")
def composed() -> Callable[..., DictConfig]:
    """The sparse_attention group of the configuration of the tiny model, from overrides."""

    @cache
    def call(*overrides: str) -> DictConfig:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            config: DictConfig = hydra.compose("config", ["model=tiny", *overrides])
        attention: DictConfig = config.sparse_attention
        return attention

    return call


@pytest.fixture(scope="session")
def preset(composed: Callable[..., DictConfig]) -> Callable[[str], Any]:
    """A preset of conf/sparse_attention; the layers it keeps dense are sparse too.

    Some keep as many as the tiny model has.
    """

    @cache
    def make(name: str) -> Any:
        attention = instantiate(composed(f"sparse_attention={name}"), _convert_="all")
        return attention if name == "dense" else dataclasses.replace(attention, dense_layers=())

    return make


@pytest.fixture(scope="session")
def build_model() -> Callable[..., Any]:
    """A small random model of a transformers configuration, with its language model around it."""
    import torch
    from transformers import AutoModelForCausalLM

    from sah.models.language_model import LanguageModel
    from sah.models.prompts import PromptEncoder
    from sah.models.tiny import randomize, tiny_tokenizer

    def build(config: Any, *, attention: str = "sdpa", seed: int = 0) -> LanguageModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
        randomize(model, seed)
        return LanguageModel(model, PromptEncoder(tiny_tokenizer(), None))

    return build


@pytest.fixture
def configure(compose: Callable[..., DictConfig], tmp_path: Path) -> Callable[..., DictConfig]:
    """Compose an experiment whose output root is in tmp_path."""

    def make(*overrides: str, root: str = "outputs") -> DictConfig:
        return compose(*overrides, f"output_root={tmp_path / root}")

    return make


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[Any, ...]]]:
    """Count the calls of a method by their arguments, which `before` is called with.

    The n-th call, counted from 1, may raise an error instead.
    """

    def count(
        owner: Any,
        name: str,
        *,
        before: Callable[..., None] | None = None,
        raise_at: int | None = None,
        error: BaseException | None = None,
    ) -> list[tuple[Any, ...]]:
        counted = []
        real = getattr(owner, name)

        def wrapper(*arguments: Any, **keywords: Any) -> Any:
            counted.append(arguments)
            if len(counted) == raise_at:
                raise error
            if before is not None:
                before(*arguments)
            return real(*arguments, **keywords)

        monkeypatch.setattr(owner, name, wrapper)
        return counted

    return count


@pytest.fixture(scope="session")
def outcome() -> Callable[[Path], dict[str, Any]]:
    """All that a complete experiment left, but for times and machine; every line must be whole."""

    def timeless(text: bytes) -> dict[str, Any]:
        return {
            key: value
            for key, value in orjson.loads(text).items()
            if key not in ("timestamp", "timing", "provenance", "checksum") and "seconds" not in key
        }

    def read(folder: Path) -> dict[str, Any]:
        left: dict[str, Any] = {
            "files": {path.name for path in folder.iterdir()},
            "results.json": timeless((folder / "results.json").read_bytes()),
        }
        for path in folder.glob("*.jsonl"):
            content = path.read_bytes()
            assert content == b"" or content.endswith(b"\n"), path
            # An interruption is seen in starts.jsonl, and nowhere else.
            if path.name != "starts.jsonl":
                left[path.name] = [timeless(line) for line in content.splitlines()]
        return left

    return read


@pytest.fixture
def prediction() -> Callable[..., Prediction]:
    """Make a prediction from its id and whatever else matters to the test."""

    def make(example_id: str, **fields: Any) -> Prediction:
        values = {
            "task": "task",
            "text": f"answer to {example_id}: “no\nyes”",
            "input_hash": "0" * 24,
            "finish_reason": "eos",
            "context_tokens": 10,
            "question_tokens": 5,
            "new_tokens": 3,
            "prefill_seconds": None,
            "decode_seconds": 0.5,
            "density": 0.25,
        }
        return Prediction(example_id=example_id, **{**values, **fields})

    return make


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """Make a result from the fields that matter to the test."""

    def make(**fields: Any) -> Result:
        values: dict[str, Any] = {
            "directory": Path("outputs/tiny/sparse/ruler_all/0123abcd"),
            "fingerprint": "0123abcd",
            "model": "tiny",
            "attention": "sparse",
            "benchmark": "ruler",
            "subset": None,
            "protocol": "default",
            "cache_bytes_per_token": None,
            "score": 0.5,
            "stderr": None,
            "n": 2,
            "tasks": {},
            "density": None,
            "output_error": None,
            "recall": None,
            "prompt_tokens": None,
            "index_bytes": {},
            "dense_agreement": None,
            "truncated": 0,
            "timing": Timing(
                load_seconds=1.0,
                prefill_seconds=0.0,
                prefill_seconds_saved=0.0,
                decode_seconds=0.0,
                context_tokens=0,
                new_tokens=0,
            ),
            "provenance": Provenance(),
            "config": {"seed": 0},
        }
        return Result(**{**values, **fields})

    return make
