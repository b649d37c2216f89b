"""Small output roots, written as the store writes them."""

import hashlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from sah.cli.view import make_parser, open_server
from sah.report.reading.collect import collect
from sah.results.aggregate import summarise
from sah.results.files import json_lines
from sah.results.identity import fingerprint_of, folders
from sah.results.schema import Provenance, Result, to_document
from sah.results.stored_lines import digest, prediction_line, scores_content
from sah.types import Prediction, Score

WriteResult = Callable[..., Path]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The output root."""
    return tmp_path / "outputs"


@pytest.fixture
def write_result(root: Path, write_below: WriteResult) -> WriteResult:
    """Write one complete experiment below the root."""
    return partial(write_below, root)


@pytest.fixture(scope="session")
def write_below() -> WriteResult:
    """Write one complete experiment; by default every example has its own context."""

    def write(
        root: Path,
        attention: str = "dense",
        scores: Sequence[float | None] = (1.0, 0.0),
        *,
        model: str = "tiny",
        benchmark: str = "ruler",
        subset: Any = None,
        tasks: Sequence[str] | None = None,
        contexts: Sequence[str] | None = None,
        texts: Sequence[str] | None = None,
        prompts: Sequence[str] | None = None,
        references: Sequence[str] | None = None,
        token_limits: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
        finish_reasons: Sequence[str] | None = None,
        maskers: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        fields: dict[str, Any] | None = None,
        provenance: dict[str, Any] | None = None,
        questions: str = "What?",
        context_text: str = "A short context.",
    ) -> Path:
        tasks = tasks or ["task"] * len(scores)
        config = {
            "model": {"_target_": "a.Model", "name": model},
            "sparse_attention": {"name": attention, "maskers": maskers or {}},
            "benchmark": {"name": benchmark, "subset": subset, "context_tokens": 512},
            "protocol": {"name": "default"},
            "seed": 0,
            **(settings or {}),
        }
        predictions, scored = [], []
        for number, (task, score) in enumerate(zip(tasks, scores, strict=True)):
            prompt = prompts[number] if prompts else ""
            inputs = f"{benchmark} {subset} {config['seed']} {number} {prompt}"
            references_hash = references[number] if references else "right"
            input_hash = hashlib.blake2b(inputs.encode(), digest_size=12).hexdigest()
            predictions.append(
                Prediction(
                    example_id=f"{task}-{number}",
                    task=task,
                    text=texts[number] if texts else f"answer {number}",
                    input_hash=input_hash,
                    context_hash=contexts[number] if contexts else input_hash,
                    references_hash=references_hash,
                    token_limit=token_limits[number] if token_limits else 10,
                    finish_reason=finish_reasons[number] if finish_reasons else "eos",
                    context_tokens=100,
                    question_tokens=10,
                    new_tokens=lengths[number] if lengths else 5,
                    keys_read=(1000.0 if attention == "dense" else 125.0)
                    * (lengths[number] / 5 if lengths else 1),
                    prefill_seconds=0.5,
                    decode_seconds=0.25,
                    density=1.0 if attention == "dense" else 0.125,
                    rows_read=1.0 if attention == "dense" else 0.25,
                    output_error=None if attention == "dense" else 0.05,
                    recall=None if attention == "dense" else 0.9,
                    queries=None if attention == "dense" else 60,
                    measured_queries=None if attention == "dense" else 6,
                )
            )
            scored.append(
                Score(
                    example_id=f"{task}-{number}",
                    task=task,
                    score=score,
                    references_hash=references_hash,
                )
            )
        fingerprint = fingerprint_of(config)
        folder = root / folders(model, attention, benchmark, subset) / fingerprint
        folder.mkdir(parents=True)
        score_lines = scores_content(scored)
        content = Result(
            directory=folder,
            fingerprint=fingerprint,
            scores_digest=digest(score_lines),
            model=model,
            attention=attention,
            benchmark=benchmark,
            subset=subset,
            protocol=config["protocol"]["name"],
            cache_bytes_per_token=None,
            **vars(summarise(predictions, scored, load_seconds=1.0)),
            provenance=Provenance(
                **{
                    "git_commit": "a" * 40,
                    "git_dirty": False,
                    "versions": {"torch": "2", "transformers": "5"},
                    "peak_memory_bytes": 10**9,
                    **(provenance or {}),
                }
            ),
            config=config,
        )
        asked = [
            {
                "example_id": one.example_id,
                "context": context_text,
                "question": questions,
                "answer_prefix": "",
                "references": ["right"],
            }
            for one in predictions
        ]
        for name, lines in (
            ("predictions.jsonl", [prediction_line(one, fingerprint) for one in predictions]),
            ("scores.jsonl", [score_lines]),
            ("examples.jsonl", [json_lines(asked)]),
        ):
            (folder / name).write_bytes(b"".join(lines))
        (folder / "results.json").write_bytes(
            orjson.dumps(to_document(replace(content, **(fields or {}))))
        )
        return folder

    return write


@pytest.fixture(scope="session")
def write_metrics() -> Callable[..., None]:
    """Write (metric, value, layer, step) records of the first example.

    With `heads`, a number of heads, head h has h times the value.
    """

    def write(folder: Path, records: Sequence[tuple[str, float, int, int]], heads: int = 0) -> None:
        lines = [
            {
                "metric": f"research_attention_{metric}",
                "value": value,
                "metadata": {"example_id": "task-0", "layer_idx": layer, "step": step},
                **({"heads": [value * head for head in range(heads)]} if heads else {}),
            }
            for metric, value, layer, step in records
        ]
        content = b"".join(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in lines)
        (folder / "micro_metrics.jsonl").write_bytes(content)

    return write


@pytest.fixture
def results(root: Path) -> Callable[[], list[Result]]:
    """Read the results below the root."""
    return lambda: collect(root)


@pytest.fixture(scope="session")
def budget() -> Callable[[float], dict[str, Any]]:
    """Maskers with one budget."""
    return lambda fraction: {"top": {"_target_": "sah.maskers.top.TopK", "fraction": fraction}}


@pytest.fixture(scope="session")
def serve() -> Callable[..., Any]:
    """Serve the page of `sah view`, without pauses between readings."""

    @contextmanager
    def serving(*arguments: object) -> Iterator[Any]:
        options = make_parser().parse([*map(str, arguments)])
        with open_server(options, "sah view", pause_seconds=0, pause_factor=0) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield server
            finally:
                server.shutdown()
                thread.join()

    return serving
