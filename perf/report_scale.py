"""The cost of reading results: ten thousand experiments as tables, two hundred as one page.

    python perf/report_scale.py [--experiments 10000] [--page 200]

Writes synthetic results with the fields of real ones and prints the wall time of whole
commands, including the start of Python, and the size of the page.
"""

import argparse
import hashlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from sah.results.aggregate import summarise
from sah.results.files import json_lines
from sah.results.identity import fingerprint_of, folders
from sah.results.schema import Provenance, Result, to_document
from sah.results.stored_lines import digest, prediction_line, scores_content
from sah.types import Prediction, Score

METHODS = ("dense", "sparse", "streaming_llm", "quest", "random_sampling")
FRACTIONS = (0.02, 0.05, 0.1, 0.2)
TEXT = "the special magic number for one of these is hidden in a garden by an old river"
WORDS = TEXT.split(" ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=10_000)
    parser.add_argument("--page", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "many")
        write_experiments(root, arguments.experiments, examples=10)
        print(f"{arguments.experiments} experiments of 10 examples")
        for command in (
            ["report", root],
            ["report", root, "--format", "csv"],
            ["report", root, "--by", "attention"],
            ["compare", root],
        ):
            seconds = timed(command)
            print(
                f"sah {' '.join(str(part) for part in command if part != root):24} {seconds:6.1f} s"
            )
        root = Path(folder, "page")
        write_experiments(root, arguments.page, examples=100)
        target = Path(folder, "report.html")
        seconds = timed(["report", root, "--format", "html", "-o", target])
        size = target.stat().st_size / 1e6
        print(f"{arguments.page} of 100 examples as a page: {seconds:.1f} s, {size:.1f} MB")


def timed(command: list[str | Path]) -> float:
    program = [sys.executable, "-c", "from sah.cli.main import main; main()"]
    started = time.perf_counter()
    done = subprocess.run([*program, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - started


def write_experiments(root: Path, count: int, examples: int) -> None:
    """Write methods × budgets × seeds; examples differ by seed and are the same for all methods."""
    settings = [(name, share) for name in METHODS for share in FRACTIONS if name != "dense"]
    settings.insert(0, ("dense", None))
    for number in range(count):
        seed, position = divmod(number, len(settings))
        write_experiment(root, *settings[position], seed, examples)


def write_experiment(
    root: Path, attention: str, share: float | None, seed: int, examples: int
) -> None:
    draw = random.Random(f"{attention} {share} {seed}")
    asked = random.Random(seed)
    predictions, scores, questions = [], [], []
    for number in range(examples):
        hashed = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=12).hexdigest()
        task = ("niah_single_1", "niah_multikey_1")[number % 2]
        predictions.append(
            Prediction(
                example_id=f"{task}-{number}",
                task=task,
                text=" ".join(draw.choices(WORDS, k=40)),
                input_hash=hashed,
                context_hash=hashed,
                finish_reason="eos",
                context_tokens=1000,
                question_tokens=40,
                new_tokens=50,
                prefill_seconds=1.5,
                decode_seconds=draw.uniform(1, 3),
                density=share or 1.0,
                rows_read=share or 1.0,
                keys_read=50_000 * (share or 1.0),
                queries=None if share is None else 2700,
                measured_queries=None if share is None else 270,
                output_error=None if share is None else draw.uniform(0.01, 0.3),
                recall=None if share is None else draw.uniform(0.7, 1),
            )
        )
        right = float(draw.random() < (0.8 if share is None else 0.6 + share))
        scores.append(Score(example_id=f"{task}-{number}", task=task, score=right))
        questions.append(
            {
                "example_id": f"{task}-{number}",
                "context": " ".join(asked.choices(WORDS, k=600)),
                "question": "What is the special magic number?",
                "answer_prefix": " The number is",
                "references": [str(asked.randrange(10**7))],
            }
        )
    maskers = {} if share is None else {"chosen": {"_target_": "T.Chosen", "fraction": share}}
    config = {
        "model": {"name": "synthetic"},
        "sparse_attention": {"name": attention, "maskers": maskers},
        "benchmark": {"name": "ruler", "subset": None, "context_tokens": 1024, "samples": examples},
        "protocol": {"name": "default"},
        "seed": seed,
    }
    name = fingerprint_of(config)
    folder = root / folders("synthetic", attention, "ruler", None) / name
    folder.mkdir(parents=True)
    score_lines = scores_content(scores)
    result = Result(
        directory=folder,
        fingerprint=name,
        scores_digest=digest(score_lines),
        model="synthetic",
        attention=attention,
        benchmark="ruler",
        subset=None,
        protocol="default",
        cache_bytes_per_token=None,
        **vars(summarise(predictions, scores, load_seconds=1.0)),
        provenance=Provenance(git_commit="0" * 40, git_dirty=False),
        config=config,
    )
    (folder / "results.json").write_bytes(
        orjson.dumps(to_document(result), option=orjson.OPT_INDENT_2)
    )
    answers = b"".join(prediction_line(one, name) for one in predictions)
    (folder / "predictions.jsonl").write_bytes(answers)
    (folder / "scores.jsonl").write_bytes(score_lines)
    (folder / "examples.jsonl").write_bytes(json_lines(questions))
    if share is not None:
        write_micro_metrics(folder / "micro_metrics.jsonl", predictions[:5], draw)


def write_micro_metrics(path: Path, predictions: list[Prediction], draw: random.Random) -> None:
    with open(path, "wb") as file:
        for prediction in predictions:
            for layer in range(8):
                for step in range(1040, 1060, 5):
                    for metric in ("output_error", "recall"):
                        record = {
                            "metric": f"research_attention_{metric}",
                            "value": draw.random(),
                            "metadata": {
                                "example_id": prediction.example_id,
                                "layer_idx": layer,
                                "step": step,
                            },
                        }
                        file.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main()
