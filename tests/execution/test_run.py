"""Complete experiments on the tiny model in this process."""

import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import torch

from sah.benchmarks.mock import Mock
from sah.errors import Busy, DamagedResults, DatasetError, ExperimentTimeout
from sah.execution import accounting as clock_module
from sah.execution import run as experiment_module
from sah.execution.arm import Arm
from sah.execution.attempts import compute
from sah.execution.run import run as run_experiment
from sah.models.language_model import LanguageModel
from sah.models.tiny import TinyModel
from sah.results import ResultStore, directory
from sah.results.schema import to_document
from sah.results.store import read_result

ROOT = Path(__file__).resolve().parents[2]
MOCK = ("model=tiny", "benchmark=mock")
RULER = ("model=tiny", "benchmark=ruler", "benchmark.context_tokens=400", "benchmark.samples=2")


@pytest.fixture
def start(configure):
    """Compute an experiment; returns its results and its directory."""

    def run(*overrides, root="outputs"):
        config = configure(*overrides, root=root)
        return compute(config, list(overrides)), directory(config)

    return run


def lines(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


# -- what an experiment leaves ---------------------------------------------------------


def test_an_experiment_leaves_its_results(start):
    result, folder = start(*MOCK, "attention=sparse", "metric_logging=full")
    assert result.fingerprint == folder.name
    assert to_document(read_result(folder)) == to_document(result)
    assert (result.model, result.attention, result.benchmark) == (*("tiny", "sparse", "mock"),)
    assert result.n == 5
    predictions = lines(folder / "predictions.jsonl")
    assert [record["example_id"] for record in predictions] == [f"mock-{n}" for n in range(5)]
    scores = [record["score"] for record in lines(folder / "scores.jsonl")]
    assert result.score == sum(scores) / 5
    assert result.density == pytest.approx(sum(p["density"] for p in predictions) / 5)
    assert 0 < result.density < 1
    assert 0 < result.recall < 1
    assert result.output_error > 0
    assert result.timing.new_tokens == sum(p["new_tokens"] for p in predictions)
    assert result.provenance.dtype == "float32"
    assert not (folder / ".claim").exists()


def test_dense_attention_measures_density_one_and_nothing_else(start):
    result, folder = start(*MOCK, "attention=dense", "metric_logging=full")
    assert result.density == 1.0
    assert result.output_error is None
    assert result.recall is None
    assert not (folder / "micro_metrics.jsonl").exists()


def test_metrics_of_an_example_average_to_what_its_prediction_says(start):
    _, folder = start(*MOCK, "attention=sparse", "metric_logging=full")
    records = lines(folder / "micro_metrics.jsonl")
    for prediction in lines(folder / "predictions.jsonl"):
        for name in ("output_error", "recall"):
            values = [
                record["value"]
                for record in records
                if record["metric"] == f"research_attention_{name}"
                and record["metadata"]["example_id"] == prediction["example_id"]
            ]
            # Three layers; the question, and every decode step.
            assert len(values) == 3 * prediction["new_tokens"]
            assert prediction[name] == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_a_complete_experiment_is_not_computed_again(start, calls):
    first, folder = start(*MOCK)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    loads = calls(TinyModel, "load")
    second, same_folder = start(*MOCK)
    assert (to_document(second), same_folder) == (to_document(first), folder)
    assert loads == []
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert after == before


def test_resume_false_computes_the_same_result_again(start, outcome, calls):
    _, folder = start(*MOCK, "generation.temperature=0.8")
    before = outcome(folder)
    loads = calls(TinyModel, "load")
    start(*MOCK, "generation.temperature=0.8", "resume=false")
    assert len(loads) == 1
    assert outcome(folder) == before


@pytest.mark.parametrize(("overrides", "contexts"), [(MOCK, 2), (RULER, 2)])
def test_each_context_is_prefilled_once(start, calls, overrides, contexts):
    prefills = calls(LanguageModel, "prefill")
    result, folder = start(*overrides)
    assert len(prefills) == contexts
    prefilled = [
        record
        for record in lines(folder / "predictions.jsonl")
        if record["prefill_seconds"] is not None
    ]
    assert len(prefilled) == contexts
    assert result.timing.context_tokens == sum(p["context_tokens"] for p in prefilled)


@pytest.mark.parametrize(("overrides", "contexts"), [(MOCK, 2), (RULER, 2)])
def test_answers_name_their_context_by_a_hash(start, overrides, contexts):
    result, folder = start(*overrides)
    records = lines(folder / "predictions.jsonl")
    assert len({record["context_hash"] for record in records}) == contexts
    assert sum(task.contexts for task in result.tasks.values()) == contexts


def test_the_questions_are_kept_beside_the_answers(start):
    _, folder = start(*MOCK)
    asked = lines(folder / "examples.jsonl")
    assert [one["example_id"] for one in asked] == [
        score["example_id"] for score in lines(folder / "scores.jsonl")
    ]
    assert "Otto" in asked[0]["context"]
    assert asked[0]["references"] == ["Otto"]


def test_results_hold_the_configuration_behind_their_fingerprint(start):
    result, _ = start(*MOCK, "seed=5")
    assert result.config["seed"] == 5
    assert result.config["model"]["name"] == "tiny"
    assert "output_root" not in result.config
    # Keys and values of two heads in each layer, 16 numbers of 4 bytes.
    layers = result.config["model"]["layers"]
    assert result.cache_bytes_per_token == layers * 2 * 2 * 16 * 4
    assert result.prompt_tokens > 0


def test_every_attention_sees_the_same_input(start):
    inputs = []
    for attention in ("dense", "sparse", "random_sampling"):
        _, folder = start(*RULER, f"attention={attention}")
        inputs.append(
            [
                (record["example_id"], record["input_hash"], record["context_tokens"])
                for record in lines(folder / "predictions.jsonl")
            ]
        )
    assert inputs[0] == inputs[1] == inputs[2]
    assert len({input_hash for _, input_hash, _ in inputs[0]}) == 2


# -- interruption ----------------------------------------------------------------------

RESUMED = [
    (MOCK, ("metric_logging=full",)),
    (MOCK, ("metric_logging=default", "generation.temperature=0.8")),
    (MOCK, ("metric_logging=full", "generation.temperature=0.8", "attention=random_sampling")),
    (MOCK, ("metric_logging=full", "metric_logging.max_records=40", "attention=oracle_top_p")),
    (MOCK, ("metric_logging=default", "metric_logging.flush_every=3", "protocol=question_dense")),
    (MOCK, ("metric_logging=off", "attention=dense", "generation.temperature=0.8")),
    (RULER, ("metric_logging=full", "generation.temperature=0.8", "generation.max_new_tokens=6")),
    (RULER, ("metric_logging=default", "generation.max_new_tokens=6")),
    (MOCK, ("metric_logging=full", "protocol=forced", "generation.temperature=0.8")),
]


@pytest.mark.parametrize(("benchmark", "overrides"), RESUMED)
def test_interrupted_run_resumes_to_identical_results(
    start, outcome, calls, configure, monkeypatch, benchmark, overrides
):
    _, undisturbed = start(*benchmark, *overrides, root="undisturbed")
    # Once in the middle of an answer, once between its metrics and the answer itself.
    for owner, name, number in ((LanguageModel, "_forward", 6), (ResultStore, "append", 1)):
        calls(owner, name, raise_at=number, error=KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            start(*benchmark, *overrides)
        monkeypatch.undo()
    folder = directory(configure(*benchmark, *overrides))
    assert orjson.loads((folder / "error.json").read_bytes())["attempt"] == 2
    start(*benchmark, *overrides)
    assert outcome(folder) == outcome(undisturbed)
    assert not (folder / "error.json").exists()


@pytest.mark.parametrize("changed", [True, False])
def test_answers_of_another_commit_or_device_are_reported(changed, start, calls, monkeypatch):
    with monkeypatch.context() as patch:
        calls(ResultStore, "append", raise_at=3, error=KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            start(*MOCK)
        patch.undo()
    monkeypatch.undo()
    if changed:
        monkeypatch.setattr(experiment_module, "device_name", lambda device: "another device")
    result, folder = start(*MOCK)
    assert result.provenance.starts == 2
    devices = [start["device"] for start in lines(folder / "starts.jsonl")]
    assert devices == ["cpu", "another device" if changed else "cpu"]
    answered_by = result.provenance.answered_by
    assert answered_by == (lines(folder / "starts.jsonl") if changed else None)


def test_a_run_that_lost_its_claim_writes_no_more_metrics(start, configure, monkeypatch):
    overrides = (*MOCK, "metric_logging=full")
    folder = directory(configure(*overrides))
    real = ResultStore.append
    written = []

    def append(store, prediction):
        real(store, prediction)
        if len(store.predictions) == 2:
            holder = orjson.loads((folder / ".claim").read_bytes())
            (folder / ".claim").write_bytes(orjson.dumps({**holder, "token": "another"}))
            written.append((folder / "micro_metrics.jsonl").read_bytes())

    monkeypatch.setattr(ResultStore, "append", append)
    with pytest.raises(Busy, match="taken over by another process"):
        start(*overrides)
    assert (folder / "micro_metrics.jsonl").read_bytes() == written[0] != b""


@pytest.mark.parametrize("answered", [1, 2, 3, 4])
def test_what_was_answered_before_the_interruption_is_not_answered_again(
    start, calls, configure, monkeypatch, answered
):
    calls(ResultStore, "append", raise_at=answered + 1, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        start(*MOCK, "metric_logging=full")
    monkeypatch.undo()
    path = directory(configure(*MOCK, "metric_logging=full")) / "predictions.jsonl"
    before = path.read_bytes()
    assert len(before.splitlines()) == answered
    answers = calls(LanguageModel, "answer")
    start(*MOCK, "metric_logging=full")
    assert len(answers) == 5 - answered
    assert path.read_bytes().startswith(before)


def test_an_answer_to_another_benchmark_stops_the_experiment(start, calls, configure, monkeypatch):
    calls(ResultStore, "append", raise_at=2, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        start(*MOCK)
    monkeypatch.undo()
    path = directory(configure(*MOCK)) / "predictions.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"mock-0"', b'"old-0"'))
    with pytest.raises(DamagedResults, match="old-0"):
        start(*MOCK)
    assert b"old-0" in path.read_bytes()


def test_error_json_counts_the_attempts(start, calls, configure, monkeypatch):
    error = RuntimeError("CUDA error: device-side assert triggered")
    for attempt in (1, 2):
        calls(LanguageModel, "prefill", raise_at=1, error=error)
        with pytest.raises(RuntimeError, match="CUDA error"):
            start(*MOCK)
        monkeypatch.undo()
        folder = directory(configure(*MOCK))
        written = orjson.loads((folder / "error.json").read_bytes())
        assert (written["category"], written["attempt"]) == ("gpu", attempt)
        assert "device-side assert" in written["traceback"]
    assert not (folder / ".claim").exists()


def test_a_retryable_error_is_retried_to_the_same_result(start, outcome, calls):
    _, undisturbed = start(*MOCK, "metric_logging=full", root="undisturbed")
    error = torch.OutOfMemoryError("CUDA out of memory")
    forwards = calls(LanguageModel, "_forward", raise_at=13, error=error)
    _, folder = start(*MOCK, "metric_logging=full", "retries=1")
    assert len(forwards) > 13
    assert outcome(folder) == outcome(undisturbed)
    assert not (folder / "error.json").exists()


# -- limits ----------------------------------------------------------------------------


def test_a_timeout_keeps_the_answers(start, outcome, configure, monkeypatch):
    _, undisturbed = start(*MOCK, root="undisturbed")
    clock = SimpleNamespace(now=0.0)
    real_append = ResultStore.append

    def append(store, prediction):
        real_append(store, prediction)
        clock.now += 25

    timer = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(clock_module, "time", timer)
    monkeypatch.setattr(ResultStore, "append", append)
    with pytest.raises(ExperimentTimeout, match="timeout_minutes=1 "):
        start(*MOCK, "timeout_minutes=1")
    monkeypatch.undo()
    # Three answers of 25 seconds each, the third begun within the minute.
    folder = directory(configure(*MOCK))
    assert len(lines(folder / "predictions.jsonl")) == 3
    assert orjson.loads((folder / "error.json").read_bytes())["category"] == "timeout"
    start(*MOCK, "timeout_minutes=1000")
    assert outcome(folder) == outcome(undisturbed)


def test_a_tiny_timeout_ends_before_the_first_answer(start, configure):
    with pytest.raises(ExperimentTimeout):
        start(*MOCK, "timeout_minutes=1e-9")
    assert not (directory(configure(*MOCK)) / "predictions.jsonl").exists()


@pytest.mark.parametrize(("cap", "expected"), [(3, 3), (8, 8), (100, 8)])
def test_max_new_tokens_caps_and_never_raises_an_examples_limit(start, cap, expected):
    _, folder = start(*MOCK, f"generation.max_new_tokens={cap}")
    for prediction in lines(folder / "predictions.jsonl"):
        assert prediction["new_tokens"] <= expected
        if prediction["finish_reason"] == "length":
            assert prediction["new_tokens"] == expected
    assert any(p["finish_reason"] == "length" for p in lines(folder / "predictions.jsonl"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changed(Mock):
    """The mock benchmark with fewer or changed examples."""

    changes: tuple = ()
    kept: int = 5

    def examples(self, tokenizer, seed):
        examples = super().examples(tokenizer, seed)[: self.kept]
        changes = self.changes or [{}] * len(examples)
        return [
            dataclasses.replace(example, **change)
            for example, change in zip(examples, changes, strict=True)
        ]


@pytest.fixture
def run_changed(configure):
    """Run the mock benchmark with changed examples; returns the predictions by id."""

    def run(root, **fields):
        config = configure(*MOCK, "attention=sparse", root=root)
        with Arm(config, []) as arm:
            arm.experiment = dataclasses.replace(arm.experiment, benchmark=Changed(**fields))
            arm.begin_attempt()
            run_experiment([arm])
        assert arm.outcome is not None
        if arm.outcome.error is not None:
            raise arm.outcome.error
        return arm.store.predictions

    return run


def test_token_limit_of_one_example_does_not_affect_the_next(run_changed):
    limits = (2, 9, 1, 6, 3)
    changed = run_changed("changed", changes=tuple({"max_new_tokens": n} for n in limits))
    longest = run_changed("longest", changes=({"max_new_tokens": 9},) * 5)
    for limit, (example_id, prediction) in zip(limits, changed.items(), strict=True):
        assert prediction.new_tokens == min(limit, longest[example_id].new_tokens)
        # Greedy: a lower limit ends the same answer earlier.
        assert (
            longest[example_id].text.encode().startswith(prediction.text.rstrip("\ufffd").encode())
        )
    assert {prediction.new_tokens for prediction in changed.values()} > {1, 2}


def test_answer_prefix_of_one_example_does_not_affect_the_next(run_changed):
    plain = run_changed("plain")
    changed = run_changed("changed", changes=({}, {"answer_prefix": " There are"}, {}, {}, {}))
    different = [name for name in plain if plain[name].input_hash != changed[name].input_hash]
    assert different == ["mock-1"]
    assert [plain[name].text for name in plain if name != "mock-1"] == [
        changed[name].text for name in changed if name != "mock-1"
    ]


def test_ids_must_be_unique(run_changed):
    with pytest.raises(DatasetError, match="5 examples have only 1 different"):
        run_changed("outputs", changes=({"id": "same"},) * 5)


def test_a_benchmark_without_examples_is_an_error(run_changed):
    with pytest.raises(DatasetError, match="no example"):
        run_changed("outputs", kept=0)


# -- what it leaves alone --------------------------------------------------------------


# Without the shape checks of the tests: beartype draws from Python's global generator.
RUN_TWICE = """
import random, sys
import hydra, numpy, torch
from sah.execution.attempts import compute

def states():
    numpy_state = numpy.random.get_state()
    return (
        random.getstate(),
        (*numpy_state[:1], numpy_state[1].tolist(), *numpy_state[2:]),
        torch.random.get_rng_state().tolist(),
    )

overrides = sys.argv[2:]
with hydra.initialize_config_dir(sys.argv[1], version_base="1.3"):
    # The first run imports libraries, which may draw random numbers.
    compute(hydra.compose("config", [*overrides, "seed=1"]), [])
    config = hydra.compose("config", overrides)
before = states()
compute(config, [])
for name, one, other in zip(("random", "numpy", "torch"), before, states()):
    assert one == other, name
"""


def test_global_random_generators_are_not_used(tmp_path):
    options = ("generation.temperature=0.8", "attention=random_sampling", "benchmark.limit=3")
    arguments = (*MOCK, *options, f"output_root={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-c", RUN_TWICE, str(ROOT / "conf"), *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.rglob("results.json"))) == 2


def test_signal_handlers_and_settings_of_torch_are_restored(start):
    def now():
        return (
            signal.getsignal(signal.SIGINT),
            signal.getsignal(signal.SIGTERM),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )

    before = now()
    start(*MOCK, "generation.temperature=0.8", "attention=random_sampling", "benchmark.limit=1")
    assert now() == before


def test_results_do_not_depend_on_the_global_random_generators(start, outcome):
    found = []
    for root, seed in (("one", 1), ("other", 2)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            options = ("generation.temperature=0.8", "attention=random_sampling")
            _, folder = start(*MOCK, *options, "metric_logging.sampling_factor=0.5", root=root)
        found.append(outcome(folder))
    assert found[0] == found[1]


def test_the_seed_changes_sampled_answers(start):
    options = (*MOCK, "generation.temperature=0.8", "attention=dense")
    texts = []
    for overrides in (("seed=0",), ("seed=1",), ("seed=1", "generation.seed=0")):
        _, folder = start(*options, *overrides)
        texts.append([record["text"] for record in lines(folder / "predictions.jsonl")])
    assert texts[0] != texts[1]
    assert texts[0] == texts[2]
