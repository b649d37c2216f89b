"""Time and token limits of a run, and checks of its examples."""

import dataclasses
from types import SimpleNamespace

import orjson
import pytest

from sah.benchmarks.mock import Mock
from sah.errors import DatasetError, ExperimentTimeout
from sah.execution import accounting as clock_module
from sah.execution.arm import Arm
from sah.execution.run import run as run_experiment
from sah.models.loading.kept_model import KeptModel
from sah.results import ResultStore, directory

MOCK = ("model=tiny", "benchmark=mock")


def lines(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_a_timeout_keeps_the_answers(start, outcome, configure, monkeypatch):
    one_by_one = (*MOCK, "generation.batch_rows=1")
    _, undisturbed = start(*one_by_one, root="undisturbed")
    clock = SimpleNamespace(now=0.0)
    real_append = ResultStore.append

    def append(store, prediction):
        real_append(store, prediction)
        clock.now += 25

    timer = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(clock_module, "time", timer)
    monkeypatch.setattr(ResultStore, "append", append)
    with pytest.raises(ExperimentTimeout, match="timeout_minutes=1 "):
        start(*one_by_one, "timeout_minutes=1")
    monkeypatch.undo()
    # Three answers of 25 seconds each, the third begun within the minute.
    folder = directory(configure(*one_by_one))
    assert len(lines(folder / "predictions.jsonl")) == 3
    assert orjson.loads((folder / "error.json").read_bytes())["category"] == "timeout"
    start(*one_by_one, "timeout_minutes=1000")
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
            run_experiment([arm], KeptModel())
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
    with pytest.raises(DatasetError, match="only 1 different ids; 5 of them have the id '"):
        run_changed("outputs", changes=({"id": "same"},) * 5)


def test_a_benchmark_without_examples_is_an_error(run_changed):
    with pytest.raises(DatasetError, match="no example"):
        run_changed("outputs", kept=0)
