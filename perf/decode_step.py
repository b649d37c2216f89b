"""Time and memory of one decode step under every attention: alone, and in the whole model.

    python perf/decode_step.py

Prints two tables of ratios. Alone: one query of one layer (9 query heads on 3 key-value heads of
dimension 64, float32, random keys) at a budget of --density-alone, divided by dense SDPA;
`straightforward` is what many research repositories do: repeat keys and values per query head,
build a full mask, and take the softmax over all keys. Whole model: a decode step of SmolLM2 under
the preset at a budget of --density, divided by the dense step. Peak memory is the most that a
step has allocated at one time.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable

import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from transformers.masking_utils import sdpa_mask

from sah.attention import (
    AttentionInputs,
    DenseAttention,
    SparseAttention,
    Visibility,
    weighted_attention,
)
from sah.attention.interface import attention_replaced
from sah.attention.session import AttentionSession
from sah.execution.building import compose

HEADS, GROUPS, DIM = 9, 3, 64
PRESETS = (
    *("streaming_llm", "oracle_top_k", "oracle_top_p", "sparse", "random_sampling", "quest"),
    *("double_sparsity", "hash_attention", "pq_cache", "socket", "vattention", "vattention_pq"),
    *("vattention_hash", "magic_pig", "loki"),
)
Step = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--density", type=float, default=0.1, help="budget of the whole model")
    parser.add_argument("--density-alone", type=float, default=0.02)
    parser.add_argument("--keys-alone", type=int, nargs="*", default=[1024, 4096, 8192, 32768])
    parser.add_argument("--keys", type=int, nargs="*", default=[1024, 4096, 8192])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    options = parser.parse_args()
    if options.keys_alone:
        table(
            f"attention alone, budget {options.density_alone:.0%}: time / dense SDPA, peak memory",
            options.keys_alone,
            lambda keys: steps_alone(options.presets, keys, options.density_alone),
            options.repeats,
        )
    if options.keys:
        from sah.models.smollm2 import SmolLM2

        model = SmolLM2().load()
        table(
            f"decode step of SmolLM2, budget {options.density:.0%}: time / dense, peak memory",
            options.keys,
            lambda keys: steps_of_model(model, options.presets, keys, options.density),
            options.repeats,
        )


def table(
    title: str,
    columns: list[int],
    make_steps: Callable[[int], dict[str, Step]],
    repeats: int,
) -> None:
    cells: dict[str, list[str]] = {}
    for keys in columns:
        steps = make_steps(keys)
        seconds = median_seconds(steps, repeats)
        for name, step in steps.items():
            shown = f"{seconds[name] / seconds['dense']:6.2f} {mebibytes(peak_bytes(step)):>7}"
            if name == "dense":
                shown = f"{1000 * seconds[name]:4.1f}ms {mebibytes(peak_bytes(step)):>7}"
            cells.setdefault(name, []).append(shown)
    print(title)
    print(f"{'keys':18s}" + "".join(f"{keys:>16,}" for keys in columns))
    for name, row in cells.items():
        print(f"{name:18s}" + "".join(f"{cell:>16}" for cell in row))
    print()


def median_seconds(steps: dict[str, Step], repeats: int) -> dict[str, float]:
    """Return the median time of every step; steps take turns, so that all share slow moments."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats + 2):
        for name, step in steps.items():
            started = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times[2:]) for name, times in seconds.items()}


def peak_bytes(step: Step) -> int:
    """Return the most that a step has allocated at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    events = profiler.profiler.kineto_results.events()
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda change: change[0]):
        held += change
        peak = max(peak, held)
    return peak


def mebibytes(count: int) -> str:
    return f"{count / 2**20:.1f}MiB"


def presets(names: Iterable[str], density: float) -> dict[str, SparseAttention]:
    """Return the presets for all layers, with `density` as the budget of maskers that have one."""
    found = {}
    for name in names:
        config = compose([f"sparse_attention={name}"]).sparse_attention
        config.dense_layers = []
        for masker in config.maskers.values():
            if "fraction" in masker:
                masker.fraction, masker.tokens = density, None
        found[name] = instantiate(config, _convert_="all")
    return found


def steps_alone(names: list[str], keys: int, density: float) -> dict[str, Step]:
    generator = torch.Generator().manual_seed(0)
    inputs = AttentionInputs(
        query=torch.randn(1, HEADS, 1, DIM, generator=generator),
        key=torch.randn(1, GROUPS, keys, DIM, generator=generator),
        value=torch.randn(1, GROUPS, keys, DIM, generator=generator),
        visibility=Visibility(torch.ones(1, 1, 1, keys, dtype=torch.bool)),
        scaling=DIM**-0.5,
        context_length=keys,
    )
    chosen = torch.rand(1, HEADS, 1, keys, generator=generator) < density

    def dense() -> object:
        # Queries of a group as rows: the fastest way to call SDPA here.
        rows = inputs.query.view(1, GROUPS, HEADS // GROUPS, DIM)
        return torch.nn.functional.scaled_dot_product_attention(rows, inputs.key, inputs.value)

    def straight() -> object:
        return straightforward(inputs.query, inputs.key, inputs.value, chosen)

    def attend(attention: SparseAttention) -> object:
        # A copy does not share the cached results of the previous call.
        fresh = dataclasses.replace(inputs, visibility=Visibility(inputs.visible))
        return weighted_attention(fresh, attention.select(fresh))

    steps: dict[str, Step] = {"dense": dense, "straightforward": straight}
    for name, attention in presets(names, density).items():
        steps[name] = lambda attention=attention: attend(attention)  # type: ignore[misc]
    return steps


def straightforward(query: Tensor, key: Tensor, value: Tensor, chosen: Tensor) -> Tensor:
    """Repeat keys and values per query head, build a full mask, and softmax over all keys."""
    group = query.shape[1] // key.shape[1]
    key, value = (item.repeat_interleave(group, dim=1) for item in (key, value))
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    scores = scores + torch.zeros_like(scores).masked_fill(~chosen, -torch.inf)
    return torch.softmax(scores, dim=-1) @ value


def steps_of_model(model, names: list[str], keys: int, density: float) -> dict[str, Step]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(100, 40000, (keys - 8,), generator=generator).tolist()
    context = model.prefill(ids, reserve_tokens=64)

    def step(session: AttentionSession) -> object:
        session.begin_example("one")
        with torch.inference_mode(), session.attached(model.model):
            model._last_logits([7], context.cache)
        context.cache.rewind()
        return None

    chosen = torch.rand(1, HEADS, 1, keys, generator=generator) < density

    def straight(module, query, key, value, attention_mask, **kwargs):
        of_keys = chosen[..., : key.shape[2]]
        return straightforward(query, key, value, of_keys).transpose(1, 2).contiguous(), None

    def straight_step() -> object:
        with torch.inference_mode(), attention_replaced(model.model, straight, sdpa_mask):
            model._last_logits([7], context.cache)
        context.cache.rewind()
        return None

    def session(attention: DenseAttention | SparseAttention) -> AttentionSession:
        started = AttentionSession(attention, seed=0)
        started.begin_context(context.length)
        return started

    arms: dict[str, DenseAttention | SparseAttention] = {"dense": DenseAttention()}
    arms.update(presets(names, density))
    sessions = {name: session(attention) for name, attention in arms.items()}
    steps = {name: lambda one=one: step(one) for name, one in sessions.items()}  # type: ignore[misc]
    return {"dense": steps.pop("dense"), "straightforward": straight_step, **steps}


if __name__ == "__main__":
    main()
