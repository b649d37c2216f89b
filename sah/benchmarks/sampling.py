"""Drawing a fair sample of a benchmark's examples, and repeating them."""

import random
from collections.abc import Sequence
from dataclasses import replace

from sah.seeding import derive
from sah.types import Example


def limit_examples(examples: Sequence[Example], limit: int | None, seed: int) -> list[Example]:
    """Draw `limit` examples, from every task in proportion to its size, keeping their order.

    Args:
        examples: all of them.
        limit: maximum number of examples; None keeps all.
        seed: determines the draw.
    """
    if limit is None or limit >= len(examples):
        return list(examples)
    by_task: dict[str, list[int]] = {}
    for position, example in enumerate(examples):
        by_task.setdefault(example.task, []).append(position)
    kept: list[int] = []
    for task, share in _shares({task: len(found) for task, found in by_task.items()}, limit):
        generator = random.Random(derive(seed, "limit", task))
        kept.extend(generator.sample(by_task[task], share))
    return [examples[position] for position in sorted(kept)]


def repeat_examples(examples: Sequence[Example], repeats: int | None) -> list[Example]:
    """Return each example `repeats` times in a row, so that its repeats share one prefill.

    They have the ids `<id>#1` to `<id>#k`, which determine the random draws of their answers: more
    repeats keep the answers of fewer. With one repeat the examples stay as they are.
    """
    if repeats is None or repeats == 1:
        return list(examples)
    return [
        replace(example, id=f"{example.id}#{number}", question_id=example.id)
        for example in examples
        for number in range(1, repeats + 1)
    ]


def _shares(sizes: dict[str, int], limit: int) -> list[tuple[str, int]]:
    """Split a limit in proportion to sizes, rounding by largest remainder."""
    total = sum(sizes.values())
    exact = {task: limit * size / total for task, size in sizes.items()}
    shares = {task: int(share) for task, share in exact.items()}
    by_remainder = sorted(exact, key=lambda task: shares[task] - exact[task])
    for task in by_remainder[: limit - sum(shares.values())]:
        shares[task] += 1
    return list(shares.items())
