"""Measure sparse prefill: patterns against a dense prefill, and attention alone by density.

    python perf/prefill.py [--tokens 4096 8192] [--keys 4096 8192] [--clock wall]

Prefill: SmolLM2 reads a context of RULER (niah_single_1) under each pattern; time divided by that
of a dense prefill, prefill density, and the peak memory of one layer's attention beside that of
sdpa. 8,192 tokens are all that SmolLM2 takes.

Attention: one layer of 9 query heads and 3 key-value heads on random tensors; time divided by that
of sdpa, for windows and for random blocks of given densities.
"""

import argparse
import logging
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from decode_step import peak_bytes
from hydra.utils import instantiate
from sweep_cost import CLOCKS
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from sah.attention.prefill.compute import attend
from sah.attention.prefill.pattern import PrefillLayer, Reads
from sah.attention.prefill.reading import SparsePrefill
from sah.execution.building import compose
from sah.execution.experiment import Experiment
from sah.models.language_model import LanguageModel

PATTERNS = (
    *("a_shape", "tri_shape", "vertical_slash", "block_top_k", "flexprefill", "xattention"),
    "moba",
)
Clock = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="*", default=[4096, 8192], help="of prefills")
    parser.add_argument("--keys", type=int, nargs="*", default=[4096, 8192], help="of attention")
    parser.add_argument("--patterns", nargs="*", default=list(PATTERNS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    now = CLOCKS[options.clock]
    logging.disable(logging.WARNING)
    print(f"{torch.get_num_threads()} threads, {options.clock} seconds")
    if options.tokens:
        model = Experiment.from_config(compose([])).model.load()
        for tokens in options.tokens:
            prefills(model, tokens, options.patterns, options.repeats, now)
    for keys in options.keys:
        attention(keys, options.repeats, now)


def medians(
    works: dict[str, Callable[[], Any]], repeats: int, now: Clock
) -> dict[str, tuple[float, Any]]:
    """Return the median time of each work, and its result; they take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    results = {}
    for _ in range(repeats):
        for name, work in works.items():
            started = now()
            results[name] = work()
            seconds[name].append(now() - started)
    return {name: (statistics.median(seconds[name]), results[name]) for name in works}


# -- prefill -------------------------------------------------------------------------------


def prefills(
    model: LanguageModel, tokens: int, names: Sequence[str], repeats: int, now: Clock
) -> None:
    ids = context(model, tokens)
    found = {name: pattern(name) for name in names}

    def prefill(sparse: SparsePrefill | None) -> float:
        return model.prefill(ids, reserve_tokens=8, sparse=sparse).prefill_density

    works: dict[str, Callable[[], Any]] = {"dense": partial(prefill, None)}
    works |= {name: partial(prefill, SparsePrefill(pattern=one)) for name, one in found.items()}
    measured = medians(works, repeats, now)
    dense = measured["dense"][0]
    layer, value = random_layer(tokens)
    peak = peak_bytes(lambda: sdpa(layer, value))
    print(
        f"{len(ids):,} tokens: a dense prefill takes {dense:.2f} s; sdpa of a layer allocates "
        f"{peak / 1e6:.0f} MB"
    )
    print(f"  {'pattern':16s}{'time':>6s}{'density':>9s}{'MB':>6s}")
    for name, one in found.items():
        seconds, density = measured[name]
        own = peak_bytes(lambda one=one: attend(layer, value, one.reads(layer)))
        print(f"  {name:16s}{seconds / dense:6.2f}{density:9.3f}{own / 1e6:6.0f}", flush=True)


def pattern(name: str) -> Any:
    config = compose([f"attention={name}"]).sparse_attention
    return instantiate(config, _convert_="all").pattern


def context(model: LanguageModel, tokens: int) -> list[int]:
    """Return the context of a prompt of at most `tokens` tokens with its answer."""
    overrides = ["benchmark=ruler", "benchmark.subset=niah_single_1", "benchmark.samples=1"]
    config = compose([*overrides, f"benchmark.context_tokens={tokens}"])
    experiment = Experiment.from_config(config)
    (example,) = experiment.benchmark.examples(model.prompts, experiment.seed)
    return list(model.prompts.encode(example).context_ids)


# -- attention -----------------------------------------------------------------------------


def attention(keys: int, repeats: int, now: Clock) -> None:
    layer, value = random_layer(keys)
    position = torch.arange(keys)
    sinks = (position < 64).view(1, 1, -1)
    blocks = -(-keys // 64)
    own = torch.eye(blocks, dtype=torch.bool)
    cases = {
        f"window of {window:,}": Reads(window=window, columns=sinks) for window in (256, 1024, keys)
    }
    for share in (0.02, 0.1, 0.3, 1.0):
        for heads, name in ((1, "all heads alike"), (layer.query.shape[1], "by head")):
            read = (torch.rand(1, heads, blocks, blocks) < share) | own
            cases[f"{share:.0%} of blocks, {name}"] = Reads(blocks=read)
    works: dict[str, Callable[[], Any]] = {"dense": partial(sdpa, layer, value)}
    works |= {name: partial(attend, layer, value, reads) for name, reads in cases.items()}
    measured = medians(works, repeats, now)
    dense = measured["dense"][0]
    print(f"{keys:,} keys: sdpa of a layer takes {1000 * dense:.0f} ms")
    print(f"  {'':32s}{'time':>6s}{'density':>9s}")
    for name in cases:
        seconds, computed = measured[name]
        print(f"  {name:32s}{seconds / dense:6.2f}{computed.density:9.3f}", flush=True)


def random_layer(keys: int) -> tuple[PrefillLayer, Tensor]:
    """Return a layer of SmolLM2's shape, and its values."""
    torch.manual_seed(0)
    query = torch.randn(1, 9, keys, 64)
    key, value = (torch.randn(1, 3, keys + 64, 64)[:, :, :keys] for _ in range(2))
    return PrefillLayer(query=query, key=key, scaling=0.125, layer_idx=0), value


def sdpa(layer: PrefillLayer, value: Tensor) -> Tensor:
    return scaled_dot_product_attention(
        layer.query, layer.key, value, is_causal=True, scale=layer.scaling, enable_gqa=True
    )


if __name__ == "__main__":
    main()
