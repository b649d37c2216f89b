import gzip
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
        ([{"context": "c", "question": "q"}], "line 1 lacks references; every row has context"),
        (
            [ROWS[0], {**ROWS[0], "answr_prefix": "x"}],
            "line 2 has the unknown field 'answr_prefix'; did you mean 'answer_prefix'?",
        ),
        ([{**ROWS[0], "x": None}], "line 1 has the unknown field 'x'; The fields are context,"),
        ([{**ROWS[0], "max_new_tokens": 0}], "line 1: max_new_tokens must be"),
        ([{**ROWS[0], "max_new_tokens": "9"}], "line 1: max_new_tokens must be"),
        ([{**ROWS[0], "max_new_tokens": 9.0}], "line 1: max_new_tokens must be"),
        ([{**ROWS[0], "max_new_tokens": 2**63}], "line 1: max_new_tokens must be"),
        ([{**ROWS[0], "context": None}], "line 1 lacks context;"),
        ([{**ROWS[0], "context": ["c"]}], r"line 1: context must be a string, got \['c'\]"),
        ([ROWS[0], {**ROWS[0], "question": 5}], "line 2: question must be a string, got 5"),
        ([{**ROWS[0], "answer_prefix": True}], "line 1: answer_prefix must be a string, got True"),
        ([{**ROWS[0], "references": []}], r"references must be .* at least one string, got \[\]"),
        ([{**ROWS[0], "references": True}], "line 1: references must be a string or a list"),
        ([{**ROWS[0], "references": ["a", None]}], "line 1: references must be .* got .*None"),
        ([{**ROWS[0], "references": {"a": "b"}}], "line 1: references must be a string or a list"),
        ([{**ROWS[0], "id": ["a"]}], "line 1: id must be a string or a number"),
        ([{**ROWS[0], "task": {}}], "line 1: task must be a string or a number"),
        ([{**ROWS[0], "extras": "x"}], "line 1: extras must be an object, got 'x'"),
        ([{**ROWS[0], "extras": {"clases": 1}}], "extras has 'clases', .* all_classes, groups"),
        ([{**ROWS[0], "extras": {"groups": "ab"}}], "extras.groups must be a list of strings"),
        ([{**ROWS[0], "id": "a"}, ROWS[1], {**ROWS[0], "id": "a"}], "lines 1 and 3 .* id 'a'"),
        ([{**ROWS[0], "id": 2}, ROWS[0]], "lines 1 and 2 have the same id '2'; a row without"),
        ([], "has no rows"),
    ],
)
def test_an_invalid_row_is_an_error_that_names_it(rows, match, write, tiny):
    benchmark = JsonLines(path=write(*rows))
    with pytest.raises(DatasetError, match=match):
        benchmark.check_data()
    with pytest.raises(DatasetError, match=match):
        benchmark.examples(tiny.prompts, seed=0)


ROW = b'{"context": "c", "question": "q", "references": "r"}'


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"\n" + ROW + b"\n\n{\n", "line 4 begins an object that does not end in the same line"),
        (b"[\n  " + ROW + b"\n]\n", r"line 1 begins a JSON array; .* `jq -c '.\[\]' "),
        (b"[" + ROW + b"]", "line 1 begins a JSON array"),
        (ROW.replace(b",", b",\n"), "line 1 begins an object .* `jq -c . "),
        (ROW + ROW, "line 1 is not JSON: Extra data at column 53"),
        (ROW + b"\n3\n", "line 2 is not a JSON object"),
        (ROW.replace(b'"r"', b'"r", "context": "d"'), "line 1 gives the key 'context' twice"),
        (ROW.replace(b'"r"', b'"r", "extras": {"a": 1, "a": 1}'), "gives the key 'a' twice"),
        (ROW.replace(b'"r"', b"NaN"), "line 1 has NaN, which is not JSON"),
        (ROW.replace(b'"r"', b"-Infinity"), "line 1 has -Infinity, which is not JSON"),
        (ROW.replace(b'"r"', b'"r", "extras": {"options": 1e999}'), "must be a finite number"),
        (ROW.replace(b'"r"', b'"\\ud83d"'), r"line 1 has \\ud83d, half of a surrogate pair"),
        (ROW.replace(b'"r"', b'"r", "\\udc00": 1'), r"line 1 has \\udc00, half of a surrogate"),
        (ROW.replace(b'"r"', b'"\xff"'), "line 1 is not UTF-8: byte 0xff at position 50"),
        (ROW.replace(b'"r"', b"9" * 5000), "line 1 Exceeds the limit"),
        (ROW.replace(b'"r"', b"[" * 100_000), "line 1 is nested too deeply"),
        (ROW.decode().encode("utf-16"), "is UTF-16; convert it with `iconv -f UTF-16"),
        (ROW.decode().encode("utf-16-be"), "line 1 has a NUL byte; is the file UTF-16"),
        (gzip.compress(ROW, mtime=0), "is compressed; unpack it with `gunzip`"),
        (b"PAR1" + ROW, "is a parquet file"),
        (b"\n \n", "has no rows"),
        (b"\xef\xbb\xbf", "has no rows"),
    ],
)
def test_a_file_that_is_not_one_object_a_line_is_an_error_that_names_the_line(
    content, match, tmp_path
):
    path = tmp_path / "my.jsonl"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=match):
        JsonLines(path=str(path)).check_data()


@pytest.mark.parametrize(
    "number", ["123456789012345678901234567890", "0.10", "1e5", "-0", "1.0", "1e999", "7"]
)
def test_a_number_is_the_text_that_it_is_written_as(number, tiny, tmp_path):
    path = tmp_path / "my.jsonl"
    fields = f'"context": "c", "question": "q", "id": {number}, "task": {number}'
    path.write_text(f'{{{fields}, "references": [{number}, "x"]}}\n')
    (example,) = JsonLines(path=str(path)).examples(tiny.prompts, seed=0)
    assert (example.id, example.task, example.references) == (number, number, (number, "x"))
    path.write_text(f'{{"context": "c", "question": "q", "references": {number}}}\n')
    (example,) = JsonLines(path=str(path)).examples(tiny.prompts, seed=0)
    assert example.references == (number,)


def test_a_byte_order_mark_empty_lines_and_escaped_pairs_are_read(tiny, tmp_path):
    path = tmp_path / "my.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + ROW.replace(b'"r"', b'"\\ud83d\\ude00"') + b"\n\r\n" + ROW)
    first, second = JsonLines(path=str(path)).examples(tiny.prompts, seed=0)
    assert (first.id, first.references) == ("1", ("😀",))
    assert (second.id, second.references) == ("2", ("r",))


def test_extras_that_the_metric_cannot_use_are_an_error_before_any_answer(write):
    with pytest.raises(DatasetError, match=r"line 1: the metric classification cannot score it"):
        JsonLines(path=write(ROWS[0]), metric="classification").check_data()
    JsonLines(path=write(ROWS[2]), metric="classification").check_data()


def test_a_task_that_the_file_does_not_have_is_named_by_the_check(write):
    for subset in ("nope", ["jsonl", "nope"], []):
        with pytest.raises(ConfigurationError, match="no such task; choose from jsonl, other"):
            JsonLines(path=write(*ROWS), subset=subset).check_data()


def test_a_folder_or_a_missing_file_is_named_by_the_check(tmp_path):
    for path, reason in (
        (tmp_path, "Is a directory"),
        (tmp_path / "none", "No such file or directory"),
    ):
        with pytest.raises(DatasetError, match=f"{path.name}.* cannot be read: {reason}; give"):
            JsonLines(path=str(path)).check_data()
    with pytest.raises(DatasetError, match="cannot be read: File name too long"):
        JsonLines(path=300 * "x").check_data()


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
