"""Suites of published data sets, on made-up rows with exactly the published columns."""

import dataclasses
from pathlib import Path

import orjson
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sah.benchmarks.suites.rows import load_rows
from sah.benchmarks.suites.ruler_hub import RulerHub
from sah.errors import ConfigurationError
from sah.execution.attempts import compute
from sah.results import directory

CONF = Path(__file__).resolve().parents[3] / "conf" / "benchmark"
SUITES = sorted(path.stem for path in CONF.glob("*.yaml") if "revision" in OmegaConf.load(path))

# Suites whose prompts are written here, from the columns of the data set.
WRITTEN = {"longbench_v2", "aime26", "math500", "gsm8k", "gpqa"}
GPQA = ("diamond", "main", "extended")


def right_answer(example):
    """Return the answer of a model that knows the references."""
    first = example.references[0]
    if example.task in ("0shot", "cot"):
        return f"The correct answer is ({first})."
    if example.task == "math500":
        return rf"\boxed{{{first}}}"
    if example.task in GPQA:
        return f"Answer: {first}"
    if example.task in ("math_calc",) or example.task.startswith(("niah", "vt", "cwe", "fwe")):
        return " ".join(example.references)
    if example.task.split("_")[0] in ("nq", "hotpotqa", "musique", "qampari", "quest") and (
        example.task.endswith(("32k", "128k", "1m"))
    ):
        return f"{list(example.references)}"
    return first


def test_every_suite_has_a_yaml():
    found = {"longbench", "longbench_v2", "ruler_hub", "infinite_bench", "zero_scrolls", "loogle"}
    found |= {"aime24", "aime25", "aime26", "loft", "math500", "gsm8k", "gpqa"}
    assert set(SUITES) == found


@pytest.mark.parametrize("name", sorted({*SUITES} - {"zero_scrolls"}))
def test_right_answers_score_one_and_empty_answers_score_zero(name, suite, tiny, predict):
    benchmark = suite(name)
    examples = benchmark.examples(tiny.prompts, seed=0)
    for score in benchmark.score(examples, predict(examples, right_answer)):
        assert score.score == pytest.approx(1.0, abs=1e-6), score
    for score in benchmark.score(examples, predict(examples, lambda example: "")):
        assert score.score == 0.0, score


@pytest.mark.parametrize("name", sorted({*SUITES} - WRITTEN))
def test_prompts_and_answer_limits_come_from_the_rows(name, suite, published, tiny):
    benchmark = suite(name)
    columns = ("context", "question", "answer_prefix", "max_new_tokens")
    rows = {
        tuple(row[name] for name in columns)
        for source in benchmark.sources()
        for row in load_rows(source, path=str(published(name)), revision="main").rows
    }
    examples = benchmark.examples(tiny.prompts, seed=0)
    assert {tuple(getattr(example, name) for name in columns) for example in examples} == rows


def test_the_limit_of_one_row_does_not_change_the_next(suite, tiny):
    examples = suite("longbench", subset="qasper").examples(tiny.prompts, seed=0)
    assert [example.max_new_tokens for example in examples] == [40, 41, 42]


def test_default_answer_limits_of_longbench_are_as_published(suite):
    lengths = {name: task.max_new_tokens for name, task in suite("longbench").tasks.items()}
    documented = {
        148: "narrativeqa qasper dureader samsum",
        84: "multifieldqa_en multifieldqa_zh trec lsht lcc repobench-p",
        52: "hotpotqa 2wikimqa musique triviaqa passage_count passage_retrieval_en "
        "passage_retrieval_zh",
        532: "gov_report qmsum multi_news vcsum",
    }
    expected = {name: tokens for tokens, names in documented.items() for name in names.split()}
    assert {name: lengths[name] for name in expected} == expected
    assert len(lengths) == 21 + 13
    assert all(lengths[name] == lengths[name[:-2]] for name in lengths if name.endswith("_e"))


@pytest.mark.parametrize(
    ("name", "count"),
    [("infinite_bench", 12), ("zero_scrolls", 10), ("loogle", 4), ("loft", 15), ("ruler_hub", 13)],
)
def test_a_suite_has_this_many_subsets(name, count, suite):
    assert len(suite(name).subsets()) == count


def test_scores_of_longbench_e_are_averaged_by_length_bucket(suite, tiny, predict):
    benchmark = suite("longbench", subset="qasper_e")
    examples = benchmark.examples(tiny.prompts, seed=0)
    scores = benchmark.score(examples, predict(examples, right_answer))
    assert [score.groups for score in scores] == [
        ("length 0-4k",),
        ("length 4-8k",),
        ("length 8k+",),
    ]


def test_scores_of_longbench_v2_are_averaged_by_difficulty_and_length(suite, tiny, predict):
    benchmark = suite("longbench_v2", subset="0shot")
    examples = benchmark.examples(tiny.prompts, seed=0)
    groups = [score.groups for score in benchmark.score(examples, predict(examples, str))]
    assert groups[0] == ("difficulty easy", "length short")
    assert groups[1] == ("difficulty hard", "length short")


def test_only_the_first_line_is_scored_for_few_shot_tasks(suite, tiny, predict):
    benchmark = suite("longbench", subset=["triviaqa", "qasper"])
    examples = benchmark.examples(tiny.prompts, seed=0)
    answers = predict(examples, lambda example: "\nOtto\nand much more about something else")
    by_task = {score.task: score.score for score in benchmark.score(examples, answers)}
    assert by_task["triviaqa"] == 1.0
    assert by_task["qasper"] < 1.0


def test_without_public_references_there_is_no_score(suite, tiny, predict):
    benchmark = suite("zero_scrolls")
    examples = benchmark.examples(tiny.prompts, seed=0)
    for score in benchmark.score(examples, predict(examples, lambda example: "two words")):
        assert score.score is None
        assert score.details == {"words": 2.0}
    known = [dataclasses.replace(examples[0], references=("two words",))]
    (score,) = benchmark.score(known, predict(known, lambda example: "two words"))
    assert score.score is not None


@pytest.mark.parametrize(
    ("task", "reference", "answer", "expected"),
    [
        ("space_digest", "60%", "I think it is 50%.", 0.5),
        ("book_sum_sort", "2, 1, 3", "1, 2, 3", 2 / 3),
        ("quality", "(B) the cat", "B", 1.0),
    ],
)
def test_answers_to_rows_with_references_get_the_official_score(
    task, reference, answer, expected, suite, tiny, predict
):
    benchmark = suite("zero_scrolls", subset=task)
    example = benchmark.examples(tiny.prompts, seed=0)[0]
    known = [dataclasses.replace(example, references=(reference,))]
    (score,) = benchmark.score(known, predict(known, lambda example: answer))
    assert score.score == pytest.approx(expected)


def test_only_the_test_split_of_loft_is_read(suite, tiny):
    for example in suite("loft").examples(tiny.prompts, seed=0):
        assert example.references == ("Otto", "Anna")


@pytest.mark.parametrize("length", [4096, "8192", "16k", "32k"])
def test_ruler_hub_has_all_published_lengths(length, suite, tiny):
    benchmark = suite("ruler_hub", length=length)
    examples = benchmark.examples(tiny.prompts, seed=0)
    assert {example.task for example in examples} == set(benchmark.subsets())
    assert not any(example.may_cut for example in examples)


def test_an_unpublished_length_is_an_error():
    with pytest.raises(ConfigurationError, match=r"length='5000'.* 4096, 8192"):
        RulerHub(length="5000")


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("aime24", r"so \boxed{033}.", "33"),
        ("aime25", "The answer is 33.0", "33"),
        ("aime24", r"\boxed{1000}", ""),
        ("aime24", "no number", ""),
        ("longbench_v2", "The correct answer is **(B)**", "B"),
        ("longbench_v2", "B", ""),
        ("aime26", r"\boxed{\frac{66}{2}}", "33"),
        ("math500", r"\boxed{x = 0.50}", "1/2"),
        ("gsm8k", r"\boxed{\$1,033.00}", "1033"),
        ("gpqa", r"$\boxed{B}$", "B"),
        ("longbench", "33", None),
    ],
)
def test_the_answer_that_votes_is_that_which_is_scored(name, text, answer, suite, tiny, predict):
    benchmark = suite(name)
    for score in benchmark.score(
        examples := benchmark.examples(tiny.prompts, seed=0), predict(examples, lambda _: text)
    ):
        assert score.answer == answer


# -- end to end ------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUITES)
def test_every_subset_runs_on_the_tiny_model(name, published, compose, tmp_path):
    config = compose(
        *("model=tiny", f"benchmark={name}", f"benchmark.path={published(name)}"),
        *("benchmark.subset=null", "attention=streaming_llm", "generation.max_new_tokens=3"),
        *("metric_logging=off", f"output_root={tmp_path}"),
    )
    result = compute(config, [])
    assert set(result.tasks) == set(instantiate(config.benchmark).subsets())
    assert result.truncated == 0
    if name == "zero_scrolls":
        assert result.score is None
        assert all(task.metrics["words"] > 0 for task in result.tasks.values())
    else:
        assert 0 <= result.score <= 1
    assert (directory(config) / "results.json").exists()


def test_a_context_that_is_too_long_is_cut_and_counted_as_truncated(published, compose, tmp_path):
    config = compose(
        *("model=tiny", "benchmark=longbench", f"benchmark.path={published('longbench')}"),
        *("benchmark.subset=qasper", "benchmark.context_tokens=150", "attention=dense"),
        *("generation.max_new_tokens=3", f"output_root={tmp_path}"),
    )
    result = compute(config, [])
    assert result.truncated == result.n == 3
    lines = (directory(config) / "predictions.jsonl").read_bytes().splitlines()
    for line in map(orjson.loads, lines):
        assert line["truncated"]
        assert line["context_tokens"] + line["question_tokens"] + 3 == 150


def test_longbench_uses_the_chat_template_where_the_official_script_does(suite, tiny):
    # `dataset not in [...]` in pred.py, which names the `_e` tasks without their ending.
    official = {"trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"}
    for example in suite("longbench", subset=None).examples(tiny.prompts, seed=0):
        expected = example.task.removesuffix("_e") not in official
        assert example.chat_template == expected, example.task


@pytest.mark.parametrize("name", sorted({*SUITES} - {"longbench"}))
def test_other_suites_use_the_chat_template_in_all_tasks(name, suite, tiny):
    examples = suite(name).examples(tiny.prompts, seed=0)
    assert {example.chat_template for example in examples} == {True}
