"""Measure eviction: a sweep of evictors, each evictor's share of a prefill, and a decode step.

    python perf/eviction.py [--tokens 2048 4096] [--keys 8192] [--clock wall]

Sweep: 12 evictors that keep four shares of two contexts of RULER, as the arms of one job, against a
prefill for each evictor, share and context, as kvpress works. The second way is a plain loop of
prefill, eviction and answer over the same model, which stores nothing; the answers must be equal.

Parts: the time of each eviction, and of what the shared prefill remembers for it, as shares of a
plain prefill.

Step: a decode step of arms that keep a tenth of --keys keys, divided by a dense step; and the bytes
of their caches as SAH states them and as counted in the storage of their tensors, as shares of the
dense cache.
"""

import argparse
import logging
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from decode_step import median_seconds
from hydra.utils import instantiate
from omegaconf import DictConfig
from sweep_cost import CLOCKS, load_once

from sah.attention import DenseAttention, SparseAttention
from sah.attention.eviction.witness import Witness
from sah.attention.session import AttentionSession
from sah.execution.attempts import compute_arms
from sah.execution.building import compose
from sah.execution.experiment import Experiment
from sah.models.cache import RewindableCache
from sah.models.eviction import evicted
from sah.models.language_model import LanguageModel, PrefilledContext
from sah.results import directory
from sah.results.files import read_json_lines

EVICTORS = (
    *("streaming_llm", "knorm", "keydiff", "lagkv", "leverage", "snapkv", "pyramidkv", "tova"),
    *("h2o", "expected_attention", "adakv", "chunkkv"),
)
WRAPPERS = ("adakv", "chunkkv")
SHARES = (0.1, 0.25, 0.5, 0.75)
ROOM = 8
"""Tokens that the cache of the decode step has room for after the context."""
Clock = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="*", default=[2048])
    parser.add_argument("--contexts", type=int, default=2)
    parser.add_argument("--answer-tokens", type=int, default=4)
    parser.add_argument("--keys", type=int, nargs="*", default=[8192])
    parser.add_argument("--parts", type=int, nargs="*", default=[4096], help="tokens")
    parser.add_argument("--repeats", type=int, default=25, help="decode steps")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    now = CLOCKS[options.clock]
    logging.disable(logging.WARNING)
    load_once("smollm2")
    model = Experiment.from_config(compose([])).model.load()
    print(f"SmolLM2, {torch.get_num_threads()} threads, {options.clock} seconds")
    for tokens in options.tokens:
        sweep(model, tokens, options.contexts, options.answer_tokens, now)
    for tokens in options.parts:
        parts(model, tokens, now)
    for keys in options.keys:
        steps(model, keys, options.repeats)


def overrides(name: str, share: float) -> list[str]:
    inner = ".of" if name in WRAPPERS else ""
    return [
        "attention=custom",
        f"sparse_attention.name={name}",
        f"+evictor@sparse_attention.evict.{name}={name}",
        f"sparse_attention.evict.{name}{inner}.fraction={share}",
    ]


# -- sweep ---------------------------------------------------------------------------------


def sweep(model: LanguageModel, tokens: int, contexts: int, answer_tokens: int, now: Clock) -> None:
    common = [
        "benchmark=ruler",
        f"benchmark.context_tokens={tokens}",
        f"benchmark.samples={contexts}",
        f"generation.max_new_tokens={answer_tokens}",
        "metric_logging=off",
    ]
    with tempfile.TemporaryDirectory() as folder:
        arms = [
            compose([*common, *overrides(name, share), f"output_root={folder}"])
            for name in EVICTORS
            for share in SHARES
        ]
        ours = counted(partial(together, arms), now)
        theirs = counted(partial(one_by_one, model, arms), now)
    assert ours.answers == theirs.answers, "the two ways must give equal answers"
    print(
        f"sweep of {len(EVICTORS)} evictors × {len(SHARES)} shares, {contexts} contexts of "
        f"{tokens:,} tokens: one job {ours.seconds:.1f} s with {ours.prefills} prefills, "
        f"one by one {theirs.seconds:.1f} s with {theirs.prefills}; ratio "
        f"{theirs.seconds / ours.seconds:.1f}",
        flush=True,
    )


@dataclass(frozen=True, kw_only=True)
class Way:
    """What one way of computing the sweep took and answered."""

    seconds: float
    prefills: int
    answers: list[str]


def counted(work: Callable[[], list[str]], now: Clock) -> Way:
    """Measure work, and count its prefills."""
    prefill: Any = LanguageModel.prefill
    calls = []

    def counting(self: LanguageModel, *arguments: Any, **keywords: Any) -> PrefilledContext:
        calls.append(self)
        context: PrefilledContext = prefill(self, *arguments, **keywords)
        return context

    LanguageModel.prefill = counting  # type: ignore[method-assign]
    try:
        started = now()
        answers = work()
        return Way(seconds=now() - started, prefills=len(calls), answers=answers)
    finally:
        LanguageModel.prefill = prefill  # type: ignore[method-assign]


def together(arms: Sequence[DictConfig]) -> list[str]:
    """Answer as one job, as a sweep does."""
    for outcome in compute_arms([(config, []) for config in arms]):
        if outcome.error is not None:
            raise outcome.error
    return [
        record["text"]
        for config in arms
        for record in read_json_lines(directory(config) / "predictions.jsonl")[0]
    ]


def one_by_one(model: LanguageModel, arms: Sequence[DictConfig]) -> list[str]:
    """Answer with a prefill for each arm and example, and nothing else."""
    answers = []
    first = Experiment.from_config(arms[0])
    prompts = [
        (example, model.prompts.encode(example))
        for example in first.benchmark.examples(model.prompts, first.seed)
    ]
    for config in arms:
        experiment = Experiment.from_config(config)
        attention, generation = experiment.sparse_attention, experiment.generation
        for example, prompt in prompts:
            limit = generation.token_limit(example.max_new_tokens)
            context = model.prefill(
                prompt.context_ids,
                reserve_tokens=len(prompt.question_ids) + limit,
                witness=attention.evictor.witness,
            )
            own = evicted(context, attention, model.model.config, seed=experiment.seed)
            answer = model.answer(
                own,
                prompt.question_ids,
                session=session(attention, own),
                sampler=generation.sampler(experiment.seed, example.id, model.device),
                max_new_tokens=limit,
            )
            answers.append(model.prompts.decode(answer.answer_ids))
    return answers


def session(attention: Any, context: PrefilledContext) -> AttentionSession:
    begun = AttentionSession(attention, seed=0)
    begun.begin_context(context.length, context.kept)
    begun.begin_example("0")
    return begun


# -- parts ---------------------------------------------------------------------------------


def parts(model: LanguageModel, tokens: int, now: Clock) -> None:
    ids = random_ids(tokens)
    attentions = {name: attention(name, 0.25) for name in EVICTORS}
    witnesses = {
        "nothing": None,
        "last queries": Witness(last_queries=64),
        "rotary": attentions["leverage"].evictor.witness,
        "future": attentions["expected_attention"].evictor.witness,
        "received": Witness(received=True),
    }

    def seconds(work: Callable[[], object]) -> float:
        started = now()
        work()
        return now() - started

    taken: dict[str, list[float]] = {}
    for _ in range(3):
        for name, witness in witnesses.items():
            prefill = partial(model.prefill, ids, reserve_tokens=64, witness=witness)
            taken.setdefault(name, []).append(seconds(prefill))
    plain = statistics.median(taken["nothing"])
    print(f"{tokens:,} tokens: a plain prefill takes {plain:.2f} s; what a witness adds to it:")
    for name in witnesses:
        if name != "nothing":
            print(f"  {name:20s}{statistics.median(taken[name]) / plain - 1:7.1%}")
    needed = Witness()
    for one in attentions.values():
        needed |= one.evictor.witness
    context = model.prefill(ids, reserve_tokens=64, witness=needed)
    print("an eviction that keeps a quarter: share of a plain prefill, time per layer")
    layers = model.model.config.num_hidden_layers
    for name, one in attentions.items():
        evict = partial(evicted, context, one, model.model.config, seed=0)
        median = statistics.median(seconds(evict) for _ in range(3))
        print(f"  {name:20s}{median / plain:7.1%} {1000 * median / layers:8.2f} ms", flush=True)


def attention(name: str, share: float) -> SparseAttention:
    found: SparseAttention = instantiate(
        compose(overrides(name, share)).sparse_attention, _convert_="all"
    )
    return found


def random_ids(tokens: int) -> list[int]:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(100, 40000, (tokens,), generator=generator).tolist()


# -- step ----------------------------------------------------------------------------------


def steps(model: LanguageModel, keys: int, repeats: int) -> None:
    arms = {name: attention(name, 0.1) for name in ("snapkv", "adakv")}
    context = model.prefill(
        random_ids(keys - ROOM), reserve_tokens=ROOM, witness=arms["snapkv"].evictor.witness
    )
    contexts = {"dense": context}
    for name, one in arms.items():
        contexts[name] = evicted(context, one, model.model.config, seed=0)
    sessions = {
        name: session(arms.get(name, DenseAttention()), own) for name, own in contexts.items()
    }

    def step(name: str) -> None:
        own = contexts[name]
        with torch.inference_mode(), sessions[name].attached(model.model):
            model._last_logits([7], own.cache)
        own.cache.rewind()

    seconds = median_seconds({name: partial(step, name) for name in contexts}, repeats)
    print(f"decode step with a tenth of {keys:,} keys: time, / dense; bytes stated, counted")
    for name, own in contexts.items():
        stated = own.cache.bytes_held() / context.cache.bytes_held()
        counted_bytes = storage_bytes(own.cache) / storage_bytes(context.cache)
        print(
            f"  {name:20s}{1000 * seconds[name]:7.1f} ms {seconds[name] / seconds['dense']:6.2f}"
            f" {stated:8.4f} {counted_bytes:8.4f}"
        )


def storage_bytes(cache: RewindableCache) -> int:
    """Count the bytes of the storages that a cache's keys and values lie in, without the room.

    Heads with fewer keys are padded here, which SAH does not count.
    """
    total = 0
    for layer in cache.layers:
        for states in (layer.keys, layer.values):
            total += states.untyped_storage().nbytes() - ROOM * states[0, :, 0].nbytes
    return total


if __name__ == "__main__":
    main()
