"""Decoding of several rows in one batch against one row, and whether the answers are the same.

    python perf/batches.py

For each attention, rows of about --tokens tokens of context, each of a length of its own, are
answered by SmolLM2: one after the other, and in one batch. Prints the tokens per second of the
batch divided by those of a single row (medians over decode steps), the time of reading all
questions one by one divided by that of reading them together (16 tokens each; key indexes are built
then, too), how many rows get the same tokens, and the largest relative difference of their logits.
"""

import argparse
import functools
import itertools
import operator
import statistics
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sah.attention import DenseAttention, SparseAttention
from sah.attention.session import AttentionSession
from sah.execution.building import build, compose
from sah.models.batch import Row, answer_rows
from sah.models.decoding import Answer
from sah.models.eviction import evicted
from sah.models.gate import relative_difference
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.models.smollm2 import SmolLM2

PRESETS = (
    *("dense", "streaming_llm", "oracle_top_k", "oracle_top_p", "sparse", "random_sampling"),
    *("quest", "double_sparsity", "hash_attention", "pq_cache", "socket", "vattention"),
    *("vattention_pq", "vattention_hash", "magic_pig", "loki", "snapkv", "h2o", "adakv", "kivi"),
    *("tova_decoding", "decoding"),
)
QUESTION, ANSWER = 16, 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="*", default=[1024, 4096])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    options = parser.parse_args()
    model = SmolLM2().load()
    for tokens in options.tokens:
        print(f"{options.rows} rows of about {tokens:,} tokens against one row")
        print(
            f"{'':18s}{'alone':>10}{'step':>10}{'tokens/s':>10}{'questions':>11}{'equal':>8}"
            f"{'logits':>10}"
        )
        ids = text_ids(model, tokens + QUESTION)
        attentions = [attention_of(name) for name in options.presets]
        sparse = [one for one in attentions if isinstance(one, SparseAttention)]
        needed = [one.witness for one in sparse if one.witness is not None]
        witness = functools.reduce(operator.or_, needed) if needed else None
        contexts = [
            model.prefill(
                ids[17 * row : tokens - 13 * row],
                reserve_tokens=QUESTION + ANSWER,
                witness=witness,
            )
            for row in range(options.rows)
        ]
        for name, attention in zip(options.presets, attentions, strict=True):
            measure(model, name, attention, contexts, ids)
        print()


def attention_of(name: str) -> DenseAttention | SparseAttention:
    return build(compose([f"attention={name}"]), "sparse_attention")


def text_ids(model: LanguageModel, count: int) -> list[int]:
    text = " ".join(
        f"The registration number of ship {n} is {(7919 * n) % 9973}, says the harbour master."
        for n in range(count // 12 + 40)
    )
    return model.prompts.tokenizer(text).input_ids[:count]


class Given:
    """Chooses the best token that does not end the answer, and notes the logits."""

    def __init__(self, model: LanguageModel) -> None:
        self.ends = sorted(model.eos_token_ids)
        self.logits: list[Tensor] = []

    def choose(self, logits: Tensor) -> int:
        self.logits.append(logits.clone())
        logits = logits.clone()
        logits[:, self.ends] = -torch.inf
        return int(logits.argmax())


def measure(
    model: LanguageModel,
    name: str,
    attention: Any,
    contexts: Sequence[PrefilledContext],
    ids: Sequence[int],
) -> None:
    own = contexts
    if isinstance(attention, SparseAttention):
        if attention.witness is not None:
            own = [evicted(one, attention, model.model.config, seed=0) for one in contexts]
        attention = attention.after_context

    def row(number: int) -> Row:
        context = own[number]
        session = AttentionSession(attention, seed=0)
        session.begin_context(context.length, context.kept)
        return Row(
            example_id=f"row {number}",
            context=context,
            question_ids=ids[number : number + QUESTION],
            session=session,
            sampler=Given(model),
            max_new_tokens=ANSWER,
        )

    def timed(rows: list[Row]) -> tuple[list[Answer], float, list[float]]:
        """Answer rows; return their answers, and the seconds of questions and decode steps."""
        times = [now()]
        answers = answer_rows(model, rows, between_tokens=lambda: times.append(now()))
        question, *steps = (end - begin for begin, end in itertools.pairwise(times))
        return answers, question, steps

    alone, single, questions = [], [], 0.0
    for number in range(len(own)):
        one = row(number)
        (answer,), question, steps = timed([one])
        alone.append((answer, one.sampler.logits))
        single += steps
        questions += question
    together = [row(number) for number in range(len(own))]
    answers, question, steps = timed(together)
    step, step_alone = statistics.median(steps), statistics.median(single)
    equal = sum(
        one.token_ids == other.token_ids for (one, _), other in zip(alone, answers, strict=True)
    )
    differences = [
        relative_difference(model, torch.cat(one.sampler.logits), torch.cat(logits))
        for one, (_, logits) in zip(together, alone, strict=True)
    ]
    print(
        f"{name:18s}{1000 * step_alone:8.1f}ms{1000 * step:8.1f}ms"
        f"{len(own) * step_alone / step:10.2f}{questions / question:11.2f}{equal:>5}/{len(own)}"
        f"{max(differences):>10.1e}",
        flush=True,
    )


def now() -> float:
    return time.perf_counter()


if __name__ == "__main__":
    main()
