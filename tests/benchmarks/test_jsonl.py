import tracemalloc

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


def test_the_tasks_in_the_file_are_the_subsets(write, tiny):
    path = write(*ROWS)
    assert JsonLines(path=path).available_subsets() == ("jsonl", "other")
    (example,) = JsonLines(path=path, subset="other").examples(tiny.prompts, seed=0)
    assert example.id == "mine"
    with pytest.raises(ConfigurationError, match="no such task; choose from jsonl, other"):
        JsonLines(path=path, subset="x").examples(tiny.prompts, seed=0)


def test_the_extras_of_a_row_are_passed_to_the_metric(write, tiny, predict):
    benchmark = JsonLines(path=write(ROWS[2]), metric="classification")
    examples = benchmark.examples(tiny.prompts, seed=0)
    (score,) = benchmark.score(examples, predict(examples, lambda example: "Animal or Plant"))
    assert score.score == 0.5


def test_an_unknown_metric_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"metric='f1' is not a scorer.*token_f1"):
        JsonLines(path="x", metric="f1")


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        ([{"context": "c", "question": "q"}], r"row 1 lacks \['references'\]"),
        (
            [ROWS[0], {**ROWS[0], "answr": "x"}],
            r"row 2 has unknown fields \['answr'\]; the fields are context,",
        ),
        ([{**ROWS[0], "max_new_tokens": 0}], "row 1: max_new_tokens must be"),
        ([{**ROWS[0], "max_new_tokens": "9"}], "row 1: max_new_tokens must be"),
        ([{**ROWS[0], "context": None}], r"row 1 lacks \['context'\]"),
        ([{**ROWS[0], "context": ["c"]}], r"row 1: context must be a string, got \['c'\]"),
        ([ROWS[0], {**ROWS[0], "question": 5}], "row 2: question must be a string, got 5"),
        ([{**ROWS[0], "answer_prefix": True}], "row 1: answer_prefix must be a string, got True"),
        ([{**ROWS[0], "references": 5}], "row 1: references must be a string or a list of strings"),
        ([{**ROWS[0], "references": ["a", None]}], "row 1: references must be .* got .*None"),
        ([{**ROWS[0], "references": {"a": "b"}}], "row 1: references must be a string or a list"),
        ([{**ROWS[0], "id": ["a"]}], "row 1: id must be a string or a number"),
        ([{**ROWS[0], "task": {}}], "row 1: task must be a string or a number"),
        ([{**ROWS[0], "extras": "x"}], "row 1: extras must be an object, got 'x'"),
        ([], "has no rows"),
    ],
)
def test_an_invalid_row_is_an_error_that_names_it(rows, match, write, tiny):
    with pytest.raises(DatasetError, match=match):
        JsonLines(path=write(*rows)).examples(tiny.prompts, seed=0)


def test_a_null_field_counts_as_absent(write, tiny):
    row = {**ROWS[0], "id": None, "task": None, "answer_prefix": None, "max_new_tokens": None}
    (example,) = JsonLines(path=write(row)).examples(tiny.prompts, seed=0)
    assert (example.id, example.task, example.answer_prefix) == ("1", "jsonl", "")
    assert example.max_new_tokens == 64


def test_a_line_longer_than_any_context_is_refused_before_it_is_read_whole(tiny, tmp_path):
    path = tmp_path / "my.jsonl"
    with open(path, "wb") as file:
        file.write(orjson.dumps(ROWS[0]) + b'\n{"context": "')
        file.truncate(100 * 10**6)
        file.seek(0, 2)
        file.write(b'", "question": "q", "references": "r"}\n')
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=r"my\.jsonl line 2 is longer than 64 MB"):
            JsonLines(path=str(path)).examples(tiny.prompts, seed=0)
        assert tracemalloc.get_traced_memory()[1] < 150 * 10**6
    finally:
        tracemalloc.stop()


def test_a_missing_file_is_an_error(tiny, tmp_path):
    with pytest.raises(DatasetError, match="No such file"):
        JsonLines(path=str(tmp_path / "none.jsonl")).examples(tiny.prompts, seed=0)
