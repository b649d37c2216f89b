import orjson
import pytest

from sah.benchmarks.jsonl import JsonLines
from sah.errors import ConfigurationError, DatasetError

ROWS = [
    {"context": "c1", "question": "q1", "references": "Otto"},
    {"context": "c2", "question": "q2", "references": ["a", "b"], "task": "other", "id": "mine"},
    {
        "context": "c3",
        "question": "q3",
        "references": ["Animal"],
        "max_new_tokens": 3,
        "answer_prefix": "Type:",
        "extras": {"all_classes": ["Animal", "Plant"]},
    },
]


@pytest.fixture
def write(tmp_path):
    def rows(*rows):
        path = tmp_path / "my.jsonl"
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        return str(path)

    return rows


def test_rows_become_examples(write, tiny):
    first, second, third = JsonLines(path=write(*ROWS)).examples(tiny.prompts, seed=0)
    assert (first.id, first.task, first.context, first.question) == ("1", "jsonl", "c1", "q1")
    assert (first.references, first.max_new_tokens, first.answer_prefix) == (("Otto",), 64, "")
    assert (second.id, second.task, second.references) == ("mine", "other", ("a", "b"))
    assert (third.max_new_tokens, third.answer_prefix) == (3, "Type:")
    assert first.may_cut


def test_tasks_in_the_file_are_subsets(write, tiny):
    path = write(*ROWS)
    assert JsonLines(path=path).available_subsets() == ("jsonl", "other")
    (example,) = JsonLines(path=path, subset="other").examples(tiny.prompts, seed=0)
    assert example.id == "mine"
    with pytest.raises(ConfigurationError, match="no such task; choose from jsonl, other"):
        JsonLines(path=path, subset="x").examples(tiny.prompts, seed=0)


def test_the_metric_scores_with_the_rows_extras(write, tiny, predict):
    benchmark = JsonLines(path=write(ROWS[2]), metric="classification")
    examples = benchmark.examples(tiny.prompts, seed=0)
    (score,) = benchmark.score(examples, predict(examples, lambda example: "Animal or Plant"))
    assert score.score == 0.5


def test_an_unknown_metric_is_an_error_that_lists_them():
    with pytest.raises(ConfigurationError, match=r"metric='f1' is no scorer.*token_f1"):
        JsonLines(path="x", metric="f1")


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"context": "c", "question": "q"}], r"row 1 lacks \['references'\]"),
        ([ROWS[0], {**ROWS[0], "answr": "x"}], r"row 2 has \['answr'\], which nothing reads"),
        ([{**ROWS[0], "max_new_tokens": 0}], "row 1: max_new_tokens must be"),
        ([{**ROWS[0], "max_new_tokens": "9"}], "row 1: max_new_tokens must be"),
        ([], "has no rows"),
    ],
)
def test_rows_that_do_not_work_are_errors_that_name_them(rows, match, write, tiny):
    with pytest.raises(DatasetError, match=match):
        JsonLines(path=write(*rows)).examples(tiny.prompts, seed=0)


def test_a_missing_file_is_an_error(tiny, tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        JsonLines(path=str(tmp_path / "none.jsonl")).examples(tiny.prompts, seed=0)
