"""Arms that share a job have the results of separate runs, and fail separately."""

import itertools
import logging
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import torch
from presets import SELECTING

from sah.attention.session import AttentionSession
from sah.errors import Busy, ExperimentTimeout
from sah.execution import accounting as clock_module
from sah.execution.attempts import compute, compute_arms
from sah.metric_logging import metrics as metrics_module
from sah.models.batch.in_turn import InTurn
from sah.models.cache import RewindableCache
from sah.models.language_model import LanguageModel
from sah.models.tiny import TinyModel
from sah.results import directory
from sah.results.claim import Claim
from sah.results.store import ResultStore

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("calibrated")

# One evictor for each thing that can be remembered of the prefill.
EVICTORS = ("knorm", "snapkv", "h2o", "leverage", "expected_attention", "kvzip")
PRESETS = ("dense", *SELECTING, *EVICTORS)
THREE = ("dense", "sparse", "streaming_llm")
# One of each kind: dense, positions alone, sampling, an index, an index with random planes.
KINDS = ("dense", "streaming_llm", "random_sampling", "quest", "magic_pig")
EVICTING = ("dense", "quest", "knorm", "snapkv", "h2o_decoding", "kivi", "think")
AFTER_QUESTION = ("dense", "snapkv", "h2o_decoding", "kivi")


@pytest.fixture
def configure(configure):
    """Compose an experiment of the mock benchmark whose output root is in tmp_path."""
    return partial(configure, "model=tiny", "benchmark=mock")


@pytest.fixture
def bundle(configure):
    """Compute attentions in one job; returns the arms and their directories."""

    def run(attentions, *overrides, root="outputs"):
        configs = [configure(f"attention={name}", *overrides, root=root) for name in attentions]
        ended = compute_arms([(config, list(overrides)) for config in configs])
        return ended, [directory(config) for config in configs]

    return run


@pytest.fixture
def separately(configure):
    """Compute attentions one by one; returns their directories."""

    def run(attentions, *overrides, root="separately"):
        configs = [configure(f"attention={name}", *overrides, root=root) for name in attentions]
        for config in configs:
            compute(config, list(overrides))
        return [directory(config) for config in configs]

    return run


def answered(folder):
    return len((folder / "predictions.jsonl").read_bytes().splitlines())


def error_of(folder):
    return orjson.loads((folder / "error.json").read_bytes())


# -- the same results ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("presets", "overrides"),
    [
        (PRESETS, ("metric_logging=full", "generation.temperature=0.8")),
        (KINDS, ("metric_logging=full", "protocol=question_dense")),
        (KINDS, ("metric_logging=off", "generation.temperature=1.5", "generation.top_k=20")),
        (
            KINDS,
            ("metric_logging=full", "generation.batch_rows=2", "generation.temperature=0.8"),
        ),
        (KINDS, ("protocol=forced", "generation.temperature=0.8")),
        (KINDS, ("protocol=forced", "generation.batch_rows=1")),
        (EVICTING, ("generation.batch_rows=2", "generation.temperature=0.8")),
        (EVICTING, ("protocol=forced", "metric_logging=full")),
        (AFTER_QUESTION, ("protocol=question_dense", "metric_logging=full")),
    ],
    ids=lambda value: f"{len(value)} arms" if "dense" in value else " ".join(value),
)
def test_every_arm_has_the_results_of_a_separate_run(
    bundle, separately, outcome, presets, overrides
):
    ended, folders = bundle(presets, *overrides)
    assert [arm.error for arm in ended] == [None] * len(presets)
    for folder, alone in zip(folders, separately(presets, *overrides), strict=True):
        assert folder.relative_to(folder.parents[3]) == alone.relative_to(alone.parents[3])
        assert outcome(folder) == outcome(alone)


def test_the_order_of_the_arms_changes_nothing(bundle, outcome):
    _, one = bundle(KINDS, "metric_logging=full", root="one")
    _, other = bundle(KINDS[::-1], "metric_logging=full", root="other")
    assert [outcome(folder) for folder in one] == [outcome(folder) for folder in other[::-1]]


def test_one_model_and_one_prefill_per_context_serve_all_arms(bundle, calls):
    loads, prefills = calls(TinyModel, "load"), calls(LanguageModel, "prefill")
    ended, _ = bundle(KINDS)
    assert (len(loads), len(prefills)) == (1, 2)
    timings = [arm.result.timing for arm in ended]
    assert [timing.prefill_seconds_saved > 0 for timing in timings] == [
        *(False, *[True] * (len(KINDS) - 1)),
    ]
    # As in a separate run, so that the speed of arms of different jobs can be compared.
    assert len({timing.prefill_seconds for timing in timings}) == 1
    assert all(timing.context_tokens > 0 for timing in timings)


def test_a_single_run_saves_nothing(bundle):
    ((arm,), _) = bundle(["sparse"])
    assert arm.result.timing.prefill_seconds_saved == 0


# -- memory ----------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "together"), [(1, 1), (2, 1), (8, 2)])
def test_the_caches_and_indexes_of_one_group_and_one_arm_at_a_time(bundle, calls, rows, together):
    bundle(["dense"], root="checked")  # the model, once
    # Called by the sessions of contexts, not by those of their questions.
    made, caches = calls(AttentionSession, "begin_context"), calls(RewindableCache, "mark")

    def indexed():
        return {id(session._indexes) for session, *_ in made if session._indexes}

    def look(session):
        assert len(indexed()) <= together

    seen = calls(AttentionSession, "keys_read", before=look)
    ended, _ = bundle(KINDS, f"generation.batch_rows={rows}")
    assert [arm.error for arm in ended] == [None] * len(KINDS)
    assert len(seen) == 5 * len(KINDS)
    assert len(caches) == 2, "one for each context"
    assert not indexed()


# -- each arm on its own ---------------------------------------------------------------


@pytest.fixture
def fail_in(monkeypatch):
    """Make the questions of an arm fail, `times` times."""

    def fail(name, error, *, times=1):
        real, raised = InTurn.read, itertools.count()

        def read(self, *arguments):
            if self.rows[0].session.attention.name == name and next(raised) < times:
                raise error
            return real(self, *arguments)

        monkeypatch.setattr(InTurn, "read", read)

    return fail


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "gpu_out_of_memory"),
        (MemoryError(), "memory"),
        (RuntimeError("bug"), "unknown"),
    ],
)
def test_a_failed_arm_does_not_end_the_others(
    bundle, separately, outcome, fail_in, monkeypatch, error, kind
):
    fail_in("sparse", error, times=99)
    ended, folders = bundle(THREE, "retries=0")
    monkeypatch.undo()
    assert [arm.error for arm in ended] == [None, error, None]
    assert error_of(folders[1])["category"] == kind
    assert not (folders[1] / "results.json").exists()
    for number in (0, 2):
        (alone,) = separately([THREE[number]])
        assert outcome(folders[number]) == outcome(alone)


def test_a_retryable_error_is_retried_without_the_other_arms(
    bundle, separately, outcome, calls, fail_in
):
    error = torch.OutOfMemoryError("CUDA out of memory")
    fail_in("sparse", error)
    prefills = calls(LanguageModel, "prefill")
    ended, folders = bundle(THREE, "metric_logging=full", "retries=1")
    assert [arm.error for arm in ended] == [None, None, None]
    assert len(prefills) == 4, "both contexts again, for the arm that failed"
    alone = separately(THREE, "metric_logging=full")
    assert [outcome(folder) for folder in folders] == [outcome(folder) for folder in alone]
    assert not (folders[1] / "error.json").exists()


def test_an_error_of_the_shared_prefill_is_the_error_of_every_arm(bundle, calls):
    error = RuntimeError("CUDA error: device-side assert triggered")
    calls(LanguageModel, "prefill", raise_at=1, error=error)
    ended, folders = bundle(THREE)
    assert [arm.error for arm in ended] == [error] * 3
    assert [error_of(folder)["category"] for folder in folders] == ["gpu"] * 3


def test_a_failed_arm_releases_its_claim_while_the_others_run(bundle, calls, fail_in):
    fail_in("dense", RuntimeError("bug"))
    held = []

    def look(store, prediction):
        root = store.directory.parents[3]
        held.append({path.parent.parents[1].name for path in root.rglob(".claim")})

    calls(ResultStore, "append", before=look)
    bundle(THREE)
    assert set.union(*held) == {"sparse", "streaming_llm"}


def test_the_time_of_other_arms_does_not_count_for_a_timeout(bundle, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    real_append = ResultStore.append

    def append(store, prediction):
        real_append(store, prediction)
        # Nine seconds an answer; the sparse arm needs thirty.
        clock.now += 30 if store.directory.parents[1].name == "sparse" else 9

    monkeypatch.setattr(clock_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    monkeypatch.setattr(ResultStore, "append", append)
    ended, folders = bundle(THREE, "timeout_minutes=1", "generation.batch_rows=1")
    assert clock.now > 60
    assert isinstance(ended[1].error, ExperimentTimeout)
    assert error_of(folders[1])["category"] == "timeout"
    assert answered(folders[1]) == 3, "the third began within the minute"
    assert ended[0].result is not None
    assert ended[2].result is not None


def test_an_arm_that_another_process_computes_is_left_alone(bundle, configure):
    theirs = directory(configure("attention=sparse"))
    theirs.mkdir(parents=True)
    with Claim(theirs):
        ended, _ = bundle(THREE)
        assert [type(arm.error) for arm in ended] == [type(None), Busy, type(None)]
        assert not (theirs / "error.json").exists()
        assert not (theirs / "predictions.jsonl").exists()


def test_each_arm_has_its_own_log(bundle, fail_in):
    fail_in("sparse", OSError(5, "flaky"))
    logging.getLogger("sah").setLevel(logging.INFO)
    try:
        _, folders = bundle(THREE)
    finally:
        logging.getLogger("sah").setLevel(logging.NOTSET)
    logs = [(folder / "run.log").read_text() for folder in folders]
    assert ["flaky" in log for log in logs] == [False, True, False]
    assert ["3 arms shared their prefills" in log for log in logs] == [True] * 3


# -- going on --------------------------------------------------------------------------


def test_interrupted_arms_go_on_to_identical_results(
    bundle, separately, outcome, calls, monkeypatch
):
    options = ("metric_logging=full", "generation.temperature=0.8")
    calls(ResultStore, "append", raise_at=8, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bundle(THREE, *options)
    monkeypatch.undo()
    ended, folders = bundle(THREE, *options)
    assert [arm.error for arm in ended] == [None] * 3
    alone = separately(THREE, *options)
    assert [outcome(folder) for folder in folders] == [outcome(folder) for folder in alone]


def test_a_finished_arm_is_left_alone_and_an_added_one_prefills_for_itself(bundle, calls):
    _, folders = bundle(["dense", "sparse"])
    before = [(folder / "predictions.jsonl").read_bytes() for folder in folders]
    prefills = calls(LanguageModel, "prefill")
    ended, again = bundle(["dense", "sparse", "streaming_llm"])
    assert [(folder / "predictions.jsonl").read_bytes() for folder in again[:2]] == before
    assert len(prefills) == 2
    assert ended[2].result.n == 5


def test_only_contexts_that_an_arm_still_needs_are_prefilled(bundle, calls, monkeypatch):
    one_by_one = "generation.batch_rows=1"
    calls(ResultStore, "append", raise_at=4, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bundle(["sparse"], one_by_one)
    monkeypatch.undo()
    prefills, answers = calls(LanguageModel, "prefill"), calls(LanguageModel, "answer")
    bundle(["sparse"], one_by_one)
    assert (len(prefills), len(answers)) == (1, 2)


def test_nothing_is_loaded_when_every_arm_is_complete(bundle, calls):
    bundle(THREE)
    loads = calls(TinyModel, "load")
    ended, _ = bundle(THREE)
    assert loads == []
    assert all(arm.result is not None for arm in ended)


# -- one dense pass for the output error -----------------------------------------------


def test_dense_output_of_equal_queries_is_computed_once(bundle, calls):
    dense = calls(metrics_module, "dense_output")
    bundle(["sparse", "streaming_llm"], "metric_logging=full", root="both")
    both = len(dense)
    for name in ("sparse", "streaming_llm"):
        bundle([name], "metric_logging=full", root=name)
    # In the first layer, each of the five questions at least: the same tokens in both arms.
    assert len(dense) - both >= both + 5


@pytest.mark.parametrize("metrics", ["off", "[research_attention_density]"])
def test_dense_output_is_not_computed_without_a_metric_that_needs_it(bundle, calls, metrics):
    option = (
        "metric_logging=off" if metrics == "off" else f"metric_logging.enabled_metrics={metrics}"
    )
    dense = calls(metrics_module, "dense_output")
    bundle(THREE, option)
    assert dense == []
