"""Break-even point of gathering: gathered against dense attention for one decode step.

    python perf/attention_paths.py

Prints, per number of keys and density, the median time of gathered attention divided by that of
dense attention; below 1 gathering is faster. `reads` is H·N / (G·K), the ratio of rows read by
which `weighted_attention` decides.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable

import torch

from sah.attention import (
    AttentionInputs,
    AttentionMask,
    Visibility,
    dense_attention,
    gathered_attention,
)

HEADS, GROUPS, DIM = 9, 3, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    print(f"{HEADS} query heads on {GROUPS} key-value heads of dimension {DIM}, float32, one query")
    print(f"{'keys':>8} {'density':>8} {'reads':>6} {'gathered/dense':>15}")
    for keys in (1024, 4096, 16384, 65536):
        for density in (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4):
            inputs, mask = case(keys, density)
            dense = median_seconds(dense_attention, inputs, mask, arguments.repeats)
            gathered = median_seconds(gathered_attention, inputs, mask, arguments.repeats)
            reads = HEADS * density / GROUPS
            print(f"{keys:8d} {density:8.2f} {reads:6.2f} {gathered / dense:15.2f}")


def case(keys: int, density: float) -> tuple[AttentionInputs, AttentionMask]:
    """Return random inputs and a mask of equally many keys per head, spread over the sequence."""
    generator = torch.Generator().manual_seed(0)
    inputs = AttentionInputs(
        query=torch.randn(1, HEADS, 1, DIM, generator=generator),
        key=torch.randn(1, GROUPS, keys, DIM, generator=generator),
        value=torch.randn(1, GROUPS, keys, DIM, generator=generator),
        visibility=Visibility(torch.ones(1, 1, 1, keys, dtype=torch.bool)),
        scaling=DIM**-0.5,
    )
    order = torch.rand(1, HEADS, 1, keys, generator=generator).argsort(-1)
    return inputs, AttentionMask.empty(inputs).add(order < round(keys * density))


def median_seconds(
    attention: Callable[[AttentionInputs, AttentionMask], torch.Tensor],
    inputs: AttentionInputs,
    mask: AttentionMask,
    repeats: int,
) -> float:
    seconds = []
    for _ in range(repeats + 1):
        # Copies do not share the cached scores and positions of the previous call.
        fresh = dataclasses.replace(inputs), dataclasses.replace(mask)
        started = time.perf_counter()
        attention(*fresh)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
