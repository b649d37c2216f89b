"""Measure what arms cost with one prefill for all, for each arm, and for each question.

    python perf/sweep_cost.py [--arms 1,4,8,16] [--tokens 1024,2048,4096]
        [--attentions dense] [--model smollm2] [--answer-tokens 16] [--clock wall]

For every number of arms and context length, answers four questions about one context in three
ways, in this process: bundled (the arms of one job), unbundled (a job for each arm), and with a
prefill for each question of each arm. Prints wall seconds without loading the model, ratios, the
efficiency of the bundle

    (one prefill + all question and decode passes, the model alone) / (wall time of the bundle)

and the context tokens prefilled in each of the three ways.

`--clock cpu` measures CPU seconds of this process instead, for a shared machine. Attentions are
repeated until there are enough arms. The efficiency is meaningful for dense arms only, because
sparse arms compute something else than the bare model.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra import initialize_config_dir
from omegaconf import DictConfig, open_dict
from transformers.cache_utils import DynamicCache

from sah.benchmarks.base import BaseBenchmark
from sah.execution.attempts import compute_arms
from sah.execution.experiment import Experiment
from sah.results import directory
from sah.results.files import read_json_lines
from sah.types import Example, Prediction, PromptTokenizer, Score

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
ROOT = Path(__file__).resolve().parent.parent
QUESTIONS = 4
_SENTENCE = "The grass is green and the sky is blue. "


@dataclass(frozen=True, kw_only=True)
class Questions(BaseBenchmark):
    """Four questions about one context, or each about its own context of equal length."""

    context_tokens: int
    answer_tokens: int
    own_contexts: bool
    name: str = "sweep_cost"

    def make_examples(self, tokenizer: PromptTokenizer, seed: int) -> Sequence[Example]:
        (tokens,) = tokenizer.token_counts([_SENTENCE * 100])
        text = _SENTENCE * (100 * self.context_tokens // tokens)
        return [
            Example(
                id=str(number),
                task="task",
                # Contexts differ from their first character on.
                context=f"{number if self.own_contexts else 0} {text}",
                question=f"Write number {number} and go on counting, without an end.",
                references=(),
                max_new_tokens=self.answer_tokens,
            )
            for number in range(QUESTIONS)
        ]

    def score_one(self, example: Example, prediction: Prediction) -> Score:
        return Score(example_id=example.id, task=example.task, score=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", default="1,4,8,16")
    parser.add_argument("--tokens", default="1024,2048,4096")
    parser.add_argument("--attentions", default="dense")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--answer-tokens", type=int, default=16)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    now = CLOCKS[options.clock]
    logging.disable(logging.WARNING)
    attentions = options.attentions.split(",")
    load_once(options.model)
    threads = torch.get_num_threads()
    print(f"{options.model}, {options.attentions}, {threads} threads, {options.clock} seconds")
    print("tokens arms  bundled unbundled  per q.  /unb. /per q. effic.   prefilled tokens")
    for tokens in map(int, options.tokens.split(",")):
        for arms in map(int, options.arms.split(",")):
            chosen = [attentions[number % len(attentions)] for number in range(arms)]
            row = measure(options.model, chosen, tokens, options.answer_tokens, now)
            print(row, flush=True)


def load_once(name: str) -> None:
    """Load the model now and return it from later loads, so that loading is not measured."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("config", [f"model={name}"])
    source: Any = type(Experiment.from_config(config).model)
    loaded = Experiment.from_config(config).model.load()
    source.load = lambda self: loaded


def measure(
    model: str,
    attentions: Sequence[str],
    tokens: int,
    answer_tokens: int,
    now: Callable[[], float],
) -> str:
    with tempfile.TemporaryDirectory() as folder:

        def arms(kind: str) -> list[DictConfig]:
            return [
                configuration(model, name, number, Path(folder, kind), tokens, answer_tokens)
                for number, name in enumerate(attentions)
            ]

        together = arms("bundled")
        bundled = seconds([together], now)
        apart, each = arms("unbundled"), arms("per_question")
        unbundled = seconds([[arm] for arm in apart], now)
        per_question = seconds([[arm] for arm in each], now)
        bare = bare_seconds(together, now)
        prefilled = "/".join(f"{prefilled_tokens(way):,}" for way in (together, apart, each))
    return (
        f"{tokens:6d} {len(attentions):4d} {bundled:8.1f} {unbundled:9.1f} {per_question:7.1f} "
        f"{bundled / unbundled:6.2f} {bundled / per_question:7.2f} {bare / bundled:6.2f}   "
        f"{prefilled}"
    )


def configuration(
    model: str, attention: str, number: int, root: Path, tokens: int, answer_tokens: int
) -> DictConfig:
    overrides = [f"model={model}", f"attention={attention}", f"output_root={root}"]
    # One answer at a time, as the bare model computes them: what is compared are prefills.
    overrides += ["metric_logging=off", "generation.batch_rows=1"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("config", overrides)
    with open_dict(config):
        config.sparse_attention.name = f"{attention}-{number}"
        config.benchmark = {
            "_target_": "__main__.Questions",
            "name": "sweep_cost",
            "context_tokens": tokens,
            "answer_tokens": answer_tokens,
            "own_contexts": root.name == "per_question",
        }
    return config


def seconds(jobs: Sequence[Sequence[DictConfig]], now: Callable[[], float]) -> float:
    """Run jobs one after the other and return their seconds."""
    total = 0.0
    for job in jobs:
        started = now()
        outcomes = compute_arms([(config, []) for config in job])
        total += now() - started
        for outcome in outcomes:
            if outcome.error is not None:
                raise outcome.error
    return total


def prefilled_tokens(arms: Sequence[DictConfig]) -> int:
    """Count the context tokens that these arms prefilled themselves."""
    records = [read_json_lines(directory(arm) / "predictions.jsonl")[0] for arm in arms]
    return sum(
        record["context_tokens"]
        for of_arm in records
        for record in of_arm
        if record["prefill_seconds"] is not None and not record["prefill_seconds_saved"]
    )


@torch.inference_mode()
def bare_seconds(arms: Sequence[DictConfig], now: Callable[[], float]) -> float:
    """Return the seconds of one prefill and of all decode passes of these arms, without SAH."""
    experiment = Experiment.from_config(arms[0])
    model = experiment.model.load()
    examples = experiment.benchmark.examples(model.prompts, 0)
    prompts = [model.prompts.encode(example) for example in examples]
    steps = [
        [int(record["new_tokens"]) for record in read_json_lines(path)[0]]
        for path in (directory(arm) / "predictions.jsonl" for arm in arms)
    ]
    started = now()
    cache = DynamicCache(config=model.model.config)
    forward(model.model, prompts[0].context_ids, cache)
    length = cache.get_seq_length()
    for of_arm in steps:
        for prompt, count in zip(prompts, of_arm, strict=True):
            token = forward(model.model, prompt.question_ids, cache)
            for _ in range(count - 1):
                token = forward(model.model, [token], cache)
            cache.crop(length - cache.get_seq_length())
    return now() - started


def forward(model: Any, ids: Sequence[int], cache: DynamicCache) -> int:
    logits = model(
        input_ids=torch.tensor([list(ids)], device=model.device),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    return int(logits[0, -1].argmax())


if __name__ == "__main__":
    main()
