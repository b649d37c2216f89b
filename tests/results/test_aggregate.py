import math
import random
from itertools import combinations

import pytest

from sah.results.aggregate import summarise
from sah.results.schema import MeanScore, Sampled, TaskResult, Timing
from sah.types import Score


@pytest.fixture
def summary(prediction):
    """Summarise (task, score) pairs, with fields of their predictions."""

    def make(pairs, fields=None):
        scores = [
            Score(example_id=str(number), task=task, score=score)
            for number, (task, score) in enumerate(pairs)
        ]
        predictions = [
            prediction(score.example_id, task=score.task, **given)
            for score, given in zip(scores, fields or [{}] * len(scores), strict=True)
        ]
        return summarise(predictions, scores, load_seconds=2.5)

    return make


def test_tasks_have_means_and_standard_errors(summary):
    tasks = summary([("a", 1.0), ("b", 0.5), ("a", 0.0), ("b", 0.5), ("a", 1.0)]).tasks
    # Sample variance of 1, 0, 1 is 1/3; its mean's variance a third of that.
    a = tasks["a"]
    assert (a.score, a.stderr) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (a.n, a.contexts) == (3, 3)
    assert tasks["b"] == TaskResult(score=0.5, stderr=0.0, n=2, contexts=2)
    assert list(tasks) == ["a", "b"]


def test_overall_score_is_the_mean_of_the_tasks_whatever_their_sizes(summary):
    overall = summary([("a", 1.0), ("b", 0.0), ("b", 0.0), ("b", 0.0)])
    assert overall.score == 0.5
    assert overall.n == 4


def test_overall_standard_error_follows_from_those_of_the_tasks(summary):
    overall = summary([("a", 1.0), ("a", 0.0), ("b", 1.0), ("b", 0.0)])
    # Each task: sd √½, over √2 samples: ½. The mean of two: √(¼ + ¼) / 2.
    assert overall.tasks["a"].stderr == pytest.approx(0.5)
    assert overall.stderr == pytest.approx(math.sqrt(0.5) / 2)


def test_the_standard_error_of_a_single_task_is_the_overall_one(summary):
    overall = summary([("a", 1.0), ("a", 0.0), ("a", 0.25)])
    assert overall.stderr == pytest.approx(overall.tasks["a"].stderr)


def test_questions_about_one_context_count_as_one_observation(summary):
    """Two contexts, whose three questions each agree: as two samples, not six."""
    scores = [("a", 1.0)] * 3 + [("a", 0.0)] * 3
    fields = [{"context_hash": "x"}] * 3 + [{"context_hash": "y"}] * 3
    overall = summary(scores, fields)
    assert overall.stderr == pytest.approx(0.5)
    assert overall.tasks["a"].contexts == 2


def test_tasks_that_share_contexts_do_not_average_their_errors_away(summary):
    scores = [("a", 1.0), ("b", 1.0), ("a", 0.0), ("b", 0.0)]
    fields = [{"context_hash": name} for name in "xxyy"]
    assert summary(scores, fields).stderr == pytest.approx(0.5)


@pytest.mark.parametrize("pairs", [[("a", 1.0)], [("a", 1.0), ("a", 0.0), ("b", 1.0)]])
def test_one_sample_has_no_standard_error(summary, pairs):
    overall = summary(pairs)
    assert overall.stderr is None
    assert overall.tasks[pairs[-1][0]].stderr is None


def test_unmeasured_values_are_none(summary):
    overall = summary([("a", 1.0), ("a", 0.0)])
    assert overall.output_error is None
    assert overall.recall is None


def test_measurements_are_means_over_the_examples_that_have_them(summary):
    fields = [
        {"density": 0.1, "output_error": 0.2, "recall": None},
        {"density": 0.2, "output_error": None, "recall": None},
        {"density": 0.6, "output_error": 0.0, "recall": 1.0},
    ]
    overall = summary([("a", 0.0)] * 3, fields)
    assert overall.density == pytest.approx(0.3)
    assert overall.output_error == pytest.approx(0.1)
    assert overall.recall == 1.0
    assert overall.rows_read is None


@pytest.mark.parametrize(
    "name",
    [
        *("density", "rows_read", "resident", "prefill_density"),
        *("keys_read", "output_error", "recall"),
    ],
)
def test_measurements_have_the_weights_and_standard_errors_of_the_score(summary, name):
    """Tasks count alike, contexts are observations: as for a score of the same values."""
    values = [0.5, 0.25, 0.75, 0.25, 1.0, 0.125]
    tasks = ["a", "a", "a", "b", "b", "b"]
    contexts = ["x", "x", "y", "x", "y", "z"]
    as_scores = summary(
        list(zip(tasks, values, strict=True)), [{"context_hash": one} for one in contexts]
    )
    fields = [{name: v, "context_hash": c} for v, c in zip(values, contexts, strict=True)]
    measured = summary([(task, 0.0) for task in tasks], fields)
    assert getattr(measured, name) == pytest.approx(as_scores.score)
    assert getattr(measured, name) == pytest.approx((1.5 / 3 + 1.375 / 3) / 2)
    assert getattr(measured, f"{name}_stderr") == pytest.approx(as_scores.stderr)
    assert as_scores.stderr > 0


def test_the_answer_length_is_a_mean_over_tasks_like_the_score(summary):
    fields = [{"new_tokens": length} for length in (4, 8, 100)]
    overall = summary([("a", 0.0), ("a", 0.0), ("b", 0.0)], fields)
    assert overall.answer_tokens == (6 + 100) / 2
    assert overall.timing.new_tokens == 112


def test_keys_read_are_null_if_an_answer_of_an_early_version_lacks_them(summary):
    """The mean over the others would be of other questions than that of another arm."""
    overall = summary([("a", 0.0)] * 2, [{"keys_read": 500.0}, {"keys_read": None}])
    assert (overall.keys_read, overall.keys_read_stderr) == (None, None)


def test_one_context_has_no_standard_error_of_a_measurement(summary):
    overall = summary([("a", 0.0)] * 2, [{"recall": 0.5, "context_hash": "x"}] * 2)
    assert (overall.recall, overall.recall_stderr) == (0.5, None)


def test_answers_and_tasks_without_a_measurement_do_not_count_in_its_mean(summary):
    fields = [{"recall": 0.2}, {"recall": None}, {"recall": 0.6}, {"recall": None}]
    overall = summary([("a", 0.0), ("a", 0.0), ("a", 0.0), ("b", 0.0)], fields)
    assert overall.recall == pytest.approx(0.4)


def test_the_measured_queries_and_examples_are_counted(summary):
    fields = [
        {"queries": 30, "measured_queries": 3},
        {"queries": 50, "measured_queries": 0},
        {"queries": None, "measured_queries": None, "density": None},
    ]
    sampled = summary([("a", 0.0)] * 3, fields).sampled
    assert sampled == Sampled(examples=1, of_examples=2, queries=3, of_queries=80)
    assert summary([("a", 0.0)]).sampled is None


def test_means_over_calls_of_early_versions_do_not_mix_with_means_over_queries(summary):
    early = {"output_error": 0.9, "recall": 0.1}
    late = {"output_error": 0.2, "recall": 0.8, "queries": 10, "measured_queries": 5}
    overall = summary([("a", 0.0)] * 3, [early, late, early])
    assert (overall.output_error, overall.recall) == (0.2, 0.8)
    assert overall.sampled == Sampled(examples=1, of_examples=3, queries=5, of_queries=10)
    assert summary([("a", 0.0)], [early]).output_error == 0.9


def test_index_memory_is_averaged_per_masker(summary):
    fields = [{"index_bytes": {"quest": 32.0}}, {"index_bytes": {"quest": 34.0, "late": 8.0}}, {}]
    overall = summary([("a", 0.0)] * 3, fields)
    assert overall.index_bytes == {"quest": 33.0, "late": 8.0}


def test_a_prefill_is_counted_once_for_all_questions_of_a_context(summary):
    fields = [
        {"prefill_seconds": 3.0, "context_tokens": 100, "new_tokens": 2, "decode_seconds": 0.5},
        {"prefill_seconds": None, "context_tokens": 100, "new_tokens": 3, "decode_seconds": 0.25},
        {
            "prefill_seconds": 1.0,
            "prefill_seconds_saved": 1.0,
            "context_tokens": 40,
            "new_tokens": 4,
            "decode_seconds": 0.25,
        },
    ]
    timing = summary([("a", 0.0)] * 3, fields).timing
    assert timing == Timing(
        load_seconds=2.5,
        prefill_seconds=4.0,
        prefill_seconds_saved=1.0,
        decode_seconds=1.0,
        context_tokens=140,
        new_tokens=9,
    )


def test_cpu_time_is_summed_and_unknown_if_that_of_any_answer_is(summary):
    fields = [
        {"decode_cpu_seconds": 1.5, "decode_thread_seconds": 0.5},
        {"decode_cpu_seconds": 0.5, "decode_thread_seconds": None},
    ]
    timing = summary([("a", 0.0)] * 2, fields).timing
    assert (timing.decode_cpu_seconds, timing.decode_thread_seconds) == (2.0, None)


def test_details_are_averaged_over_the_examples_that_have_them(prediction):
    scores = [
        Score(example_id="0", task="a", score=1.0, details={"words": 4, "exact": 1.0}),
        Score(example_id="1", task="a", score=0.0, details={"words": 2}),
        Score(example_id="2", task="b", score=0.0),
    ]
    tasks = summarise([prediction(str(n)) for n in range(3)], scores, load_seconds=1.0).tasks
    assert tasks["a"].metrics == {"words": 3.0, "exact": 1.0}
    assert tasks["b"].metrics == {}


def repeated(prediction, questions):
    """Summarise questions, each a list of the scores and answers of its repeats."""
    scores = [
        Score(
            example_id=f"{question}#{number}",
            task="a",
            score=score,
            question_id=str(question),
            answer=answer,
        )
        for question, repeats in enumerate(questions)
        for number, (score, answer) in enumerate(repeats, start=1)
    ]
    predictions = [
        prediction(score.example_id, task="a", context_hash=score.question_id) for score in scores
    ]
    return summarise(predictions, scores, load_seconds=1.0).tasks["a"]


@pytest.mark.parametrize("repeats", [2, 4, 6, 7])
def test_pass_at_j_is_the_share_of_subsets_with_a_right_answer(prediction, repeats):
    draw = random.Random(repeats)
    right = [[draw.random() < 0.3 for _ in range(repeats)] for _ in range(5)]
    task = repeated(prediction, [[(float(one), None) for one in asked] for asked in right])
    assert task.score == pytest.approx(sum(map(sum, right)) / (5 * repeats))
    assert task.contexts == 5
    sizes = sorted({1, 2, 4, repeats} & set(range(repeats + 1)))
    assert list(task.metrics) == [f"pass@{size}" for size in sizes]
    for size in sizes:
        subsets = [any(one) for asked in right for one in combinations(asked, size)]
        assert task.metrics[f"pass@{size}"] == pytest.approx(sum(subsets) / len(subsets))


def test_pass_at_j_of_a_thousand_repeats_is_exact(prediction):
    """One right answer of n is among j drawn with probability j / n."""
    asked = [(1.0, None)] + [(0.0, None)] * 999
    metrics = repeated(prediction, [asked]).metrics
    sizes = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    assert metrics == {f"pass@{size}": pytest.approx(size / 1000, rel=1e-12) for size in sizes}


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ("33 33 7 8", 1.0),
        ("7 7 33 8", 0.0),
        ("33 33 7 7", 0.5),
        ("33 7 8 9", 0.25),
        ("33 - - -", 1.0),
        ("7 - - -", 0.0),
        ("- - - -", 0.0),
    ],
)
def test_the_majority_is_the_most_frequent_answer_and_ties_break_at_random(
    prediction, answers, expected
):
    """33 is right, and - is a text without an answer."""
    asked = [(float(one == "33"), one.strip("-")) for one in answers.split()]
    assert repeated(prediction, [asked]).metrics["majority@4"] == expected
    both = repeated(prediction, [asked, [(1.0, "5")] * 4]).metrics["majority@4"]
    assert both == pytest.approx((expected + 1) / 2)


def test_fractional_scores_have_no_pass_at_j_and_tasks_without_answers_no_majority(prediction):
    assert repeated(prediction, [[(0.5, None), (1.0, None)]]).metrics == {}
    assert repeated(prediction, [[(0.5, "a"), (1.0, "b")]]).metrics == {"majority@2": 0.75}
    assert repeated(prediction, [[(1.0, "a")], [(0.0, "b")]]).metrics == {}
    assert repeated(prediction, [[(None, "a")] * 2]).metrics == {}
    assert repeated(prediction, [[(1.0, "a")] * 2, [(0.0, "b")]]).metrics == {}


def test_groups_are_averaged_and_empty_ones_are_absent(prediction):
    scores = [
        Score(example_id="0", task="a", score=1.0, groups=("easy", "short")),
        Score(example_id="1", task="a", score=0.0, groups=("easy", "long")),
        Score(example_id="2", task="a", score=0.5, groups=("hard", "long")),
    ]
    tasks = summarise([prediction(str(n)) for n in range(3)], scores, load_seconds=1.0).tasks
    groups = tasks["a"].groups
    assert {name: group.n for name, group in groups.items()} == {
        "easy": 2,
        "hard": 1,
        "long": 2,
        "short": 1,
    }
    assert groups["easy"].score == 0.5
    assert groups["hard"] == MeanScore(score=0.5, stderr=None, n=1, contexts=1)


def test_without_public_references_neither_the_task_nor_the_experiment_has_a_score(prediction):
    scores = [
        Score(example_id="0", task="a", score=1.0),
        Score(example_id="1", task="b", score=None, details={"words": 3}),
    ]
    overall = summarise([prediction(str(n)) for n in range(2)], scores, load_seconds=1.0)
    assert overall.score is None
    assert overall.stderr is None
    assert overall.tasks["a"].score == 1.0
    assert overall.tasks["b"] == TaskResult(
        score=None, stderr=None, n=1, contexts=1, metrics={"words": 3.0}
    )


def test_thoughts_are_counted_and_their_tokens_averaged_over_those_who_think(summary):
    fields = [
        {"thought": "hm", "thought_tokens": 4},
        {"thought": "so", "thought_tokens": 8, "unfinished_thought": True},
        {},
    ]
    overall = summary([("a", 1.0)] * 3, fields)
    assert (overall.thought_tokens, overall.unfinished_thoughts) == (6.0, 1)
    nobody = summary([("a", 1.0)])
    assert (nobody.thought_tokens, nobody.unfinished_thoughts) == (None, 0)


@pytest.mark.parametrize(
    ("used", "expected"),
    [([True, True], True), ([False, False], False), ([True, False], None), ([None, None], None)],
)
def test_a_task_says_whether_all_its_prompts_had_the_chat_template(summary, used, expected):
    overall = summary([("a", 1.0)] * 2, [{"chat_template": value} for value in used])
    assert overall.tasks["a"].chat_template is expected


@pytest.mark.parametrize("score", [7.0, -0.1, 1.0000001, math.nan, math.inf])
def test_a_score_outside_0_to_1_is_refused_by_its_example(summary, score):
    with pytest.raises(ValueError, match=f"example '1' is {score}"):
        summary([("a", 1.0), ("a", score)])
