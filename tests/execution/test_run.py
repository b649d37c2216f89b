"""Complete experiments on the tiny model in this process."""

import copy
import dataclasses
import math
import signal
import subprocess
import sys
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
import torch

from sah.attention.eviction.reconstruction import Reconstruction
from sah.attention.eviction.witness import Witness
from sah.benchmarks.mock import Mock
from sah.errors import ConfigurationError
from sah.execution.groups.sharing import _answer_in_turn
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder
from sah.models.tiny import TinyModel, tiny_tokenizer
from sah.results.schema import to_document
from sah.results.store import read_result

ROOT = Path(__file__).resolve().parents[2]
MOCK = ("model=tiny", "benchmark=mock")
RULER = ("model=tiny", "benchmark=ruler", "benchmark.context_tokens=400", "benchmark.samples=2")


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
        question = prediction["question_tokens"]
        first = prediction["context_tokens"]
        for name in ("density", "rows_read", "output_error", "recall"):
            of_example = [
                record
                for record in records
                if record["metric"] == f"research_attention_{name}"
                and record["metadata"]["example_id"] == prediction["example_id"]
            ]
            # Three layers; the question, and every decode step.
            assert len(of_example) == 3 * prediction["new_tokens"]
            total = sum(
                record["value"] * (question if record["metadata"]["step"] == first else 1)
                for record in of_example
            )
            queries = 3 * (question + prediction["new_tokens"] - 1)
            assert prediction[name] == pytest.approx(total / queries, rel=1e-5)
            assert prediction["queries"] == prediction["measured_queries"] == queries


def test_a_layer_that_stays_dense_has_no_error_and_full_recall(start):
    options = ("attention=sparse", "metric_logging=full", "sparse_attention.dense_layers=[1]")
    _, folder = start(*MOCK, *options)
    records = lines(folder / "micro_metrics.jsonl")
    assert {record["metadata"]["layer_idx"] for record in records} == {0, 2}
    for prediction in lines(folder / "predictions.jsonl"):
        queries = prediction["question_tokens"] + prediction["new_tokens"] - 1
        for name, in_dense_layers in (("density", 1), ("output_error", 0), ("recall", 1)):
            in_sparse_layers = sum(
                record["value"] * record["metadata"]["queries"]
                for record in records
                if record["metric"] == f"research_attention_{name}"
                and record["metadata"]["example_id"] == prediction["example_id"]
            )
            expected = (in_sparse_layers + queries * in_dense_layers) / (3 * queries)
            assert prediction[name] == pytest.approx(expected, rel=1e-5)
        assert prediction["queries"] == prediction["measured_queries"] == 3 * queries


@pytest.mark.parametrize("limit", [0, 7, 60])
def test_a_limit_of_records_changes_no_number(start, limit):
    """Means used to end where the records did: those of the last examples were null."""
    options = (*MOCK, "attention=sparse", "metric_logging=full")
    whole, folder = start(*options)
    cut, cut_folder = start(*options, f"metric_logging.max_records={limit}")
    names = ("density", "rows_read", "output_error", "recall", "queries", "measured_queries")
    for one, other in zip(
        lines(folder / "predictions.jsonl"), lines(cut_folder / "predictions.jsonl"), strict=True
    ):
        assert {name: one[name] for name in names} == {name: other[name] for name in names}
    assert (cut.output_error, cut.recall) == (whole.output_error, whole.recall)
    path = cut_folder / "micro_metrics.jsonl"
    kept = lines(path) if limit else []
    counts = Counter(record["metadata"]["example_id"] for record in kept)
    # Five examples with at least nine calls of four metrics each.
    assert set(counts.values()) <= {limit // 5}
    assert len(counts) == (5 if limit else 0)
    assert limit or not path.exists()


def test_sampling_measures_every_example_alike(start):
    """A tenth of each example, whatever the others before it had."""
    result, folder = start(*MOCK, "attention=sparse")
    predictions = lines(folder / "predictions.jsonl")
    records = lines(folder / "micro_metrics.jsonl")
    for prediction in predictions:
        drawn = [
            record["metadata"]["queries"]
            for record in records
            if record["metric"] == "research_attention_recall"
            and record["metadata"]["example_id"] == prediction["example_id"]
        ]
        question, steps = prediction["question_tokens"], prediction["new_tokens"] - 1
        assert prediction["queries"] == 3 * (question + steps)
        assert prediction["measured_queries"] == sum(drawn)
        # A question is drawn in equal parts of at most 4 tokens, in each of three layers.
        parts = math.ceil(question / 4)
        assert abs(len(drawn) - 0.1 * 3 * (parts + steps)) < 1
        assert set(drawn) <= {1, question // parts, math.ceil(question / parts)}
        assert prediction["recall"] is not None
    assert result.recall == pytest.approx(sum(one["recall"] for one in predictions) / 5)
    sampled = result.sampled
    assert (sampled.examples, sampled.of_examples) == (5, 5)
    assert sampled.queries == sum(one["measured_queries"] for one in predictions)
    assert sampled.of_queries == sum(one["queries"] for one in predictions)


def test_a_sample_estimates_the_means_over_all_queries(start):
    options = (*MOCK, "attention=streaming_llm")
    whole, _ = start(*options, "metric_logging=full")
    sample, _ = start(*options, "metric_logging.sampling_factor=0.3")
    for name in ("output_error", "recall"):
        assert getattr(sample, name) == pytest.approx(getattr(whole, name), rel=0.1)
    assert (sample.density, sample.rows_read) == (whole.density, whole.rows_read)


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


@pytest.mark.parametrize("used", [True, False])
def test_the_result_says_whether_the_chat_template_was_used(start, used):
    result, folder = start(*MOCK, f"benchmark.chat_template={used}")
    assert result.tasks["mock"].chat_template is used
    assert {record["chat_template"] for record in lines(folder / "predictions.jsonl")} == {used}


def test_a_base_model_is_recorded_as_without_a_template(start, monkeypatch):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = None
    encoder = PromptEncoder(tokenizer, 8192)
    monkeypatch.setattr(TinyModel, "prompts", lambda model: encoder)
    result, _ = start(*MOCK)
    assert result.tasks["mock"].chat_template is False
    with pytest.raises(ConfigurationError, match="has no chat template"):
        start(*MOCK, "benchmark.chat_template=true")


def test_prompts_with_and_without_the_template_do_not_share_a_prefill(start, calls, monkeypatch):
    original = Mock.examples

    def alternating(self, tokenizer, seed):
        return [
            dataclasses.replace(example, chat_template=number != 1)
            for number, example in enumerate(original(self, tokenizer, seed))
        ]

    _, both = start(*MOCK, root="both")
    _, neither = start(*MOCK, "benchmark.chat_template=false", root="neither")
    monkeypatch.setattr(Mock, "examples", alternating)
    prefills = calls(LanguageModel, "prefill")
    result, folder = start(*MOCK)
    assert len(prefills) == 4
    assert result.tasks["mock"].chat_template is None
    texts, with_template, without = (
        [record["text"] for record in lines(one / "predictions.jsonl")]
        for one in (folder, both, neither)
    )
    assert texts == [with_template[0], without[1], *with_template[2:]]


def test_sharing_saves_the_prefill_and_the_repetition_of_all_arms_but_the_first():
    zipped = Reconstruction(chunk=40, sinks=4)
    witness = Witness(reconstructions=frozenset({zipped}))
    context = SimpleNamespace(seconds=2.0, reconstructions={zipped: SimpleNamespace(seconds=5.0)})
    arms = [
        SimpleNamespace(
            experiment=SimpleNamespace(witness=needs),
            alone=nullcontext,
            answer_group=lambda *_, **__: None,
        )
        for needs in (None, witness, witness, Witness(received=True))
    ]
    assert _answer_in_turn(arms, None, [context, context], []) == 2 * (3 * 2.0 + 5.0)
