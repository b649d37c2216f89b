"""Rescoring over damaged results, interrupted rescoring, and examples that changed since."""

import shutil
from dataclasses import replace

import orjson
import pytest
from damage import DAMAGES

from sah.benchmarks.mock import Mock
from sah.cli import report, rescore
from sah.errors import DamagedResults
from sah.execution import rescoring
from sah.execution.attempts import compute
from sah.results import directory
from sah.results import store as rescoring_store
from sah.results.store import ResultStore, read_result

MOCK = ("model=tiny", "benchmark=mock", "attention=dense", "metric_logging=off")


@pytest.fixture
def three(compose, tmp_path, tmp_path_factory, cache={}):  # noqa: B006 - computed once
    """Complete experiments of three seeds."""
    if "root" not in cache:
        cache["root"] = tmp_path_factory.mktemp("three")
        for seed in range(3):
            compute(compose(*MOCK, f"seed={seed}", f"output_root={cache['root']}"), [])
    root = tmp_path / "outputs"
    shutil.copytree(cache["root"], root)
    return [directory(compose(*MOCK, f"seed={seed}", f"output_root={root}")) for seed in range(3)]


@pytest.fixture
def generous(monkeypatch):
    """A scorer that was corrected: every answer is right."""
    original = Mock.score
    monkeypatch.setattr(
        Mock,
        "score",
        lambda self, *given: [replace(score, score=1.0) for score in original(self, *given)],
    )


def written(folder):
    return orjson.loads((folder / "results.json").read_bytes())


def with_examples(monkeypatch, change):
    """Change the examples that the benchmark makes."""
    original = Mock.make_examples
    monkeypatch.setattr(
        Mock,
        "make_examples",
        lambda self, *given: [change(example) for example in original(self, *given)],
    )


# What rescoring replaces anyway, or does not read.
MENDED = {
    *(("scores.jsonl", kind) for kind in DAMAGES["scores.jsonl"]),
    *(("examples.jsonl", kind) for kind in DAMAGES["examples.jsonl"]),
    *(("results.json", kind) for kind in ("score edited", "score null", "n too large")),
    *(("results.json", kind) for kind in ("task edited", "task removed", "digest edited")),
    ("results.json", "stderr negative"),
    *(("error.json", kind) for kind in ("NUL bytes", "a pipe")),
}
RESCORED = [
    *(("results.json", kind) for kind in ("torn", "empty", "a folder", "score of 7", "no timing")),
    *(("results.json", kind) for kind in ("score edited", "digest edited", "config edited")),
    *(("scores.jsonl", kind) for kind in ("missing", "torn", "a score edited", "a line twice")),
    *(("predictions.jsonl", kind) for kind in ("text edited", "text null", "another arm")),
    *(("predictions.jsonl", kind) for kind in ("missing", "a folder", "a pipe", "a line less")),
    *(("config.yaml", kind) for kind in ("NUL bytes", "a folder", "a pipe")),
    *(("overrides.yaml", kind) for kind in ("NUL bytes", "a folder", "a pipe")),
    *(("starts.jsonl", "a folder"), ("error.json", "NUL bytes"), ("examples.jsonl", "torn")),
    (".claim", "NUL bytes"),
]


@pytest.mark.parametrize(("name", "kind"), RESCORED)
def test_the_others_are_rescored_and_the_damage_is_named(name, kind, three, generous, caplog):
    first, damaged, last = three
    DAMAGES[name][kind](damaged / name)
    if (name, kind) in MENDED:
        rescore.main([str(first.parents[3])])
        assert read_result(damaged).score == 1
    else:
        with pytest.raises(SystemExit, match="1 of 3 experiments could not be rescored"):
            rescore.main([str(first.parents[3])])
        (told,) = [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]
        assert str(damaged) in told
        assert name in told or name == ".claim"
    for folder in (first, last):
        assert read_result(folder).score == 1
        assert written(folder)["provenance"]["rescored"]["other_references"] == 0


@pytest.mark.parametrize("file", ["scores.jsonl", "results.json"])
def test_a_rescore_that_was_killed_is_noticed_and_completed(
    file, three, generous, monkeypatch, caplog, capsys
):
    """Killed before either of its two files is replaced."""
    folder, others = three[0], three[1:]

    def die(path, *arguments):
        if path.name == file:
            raise KeyboardInterrupt
        real(path, *arguments)

    for writer in ("write_atomically", "write_json"):
        with monkeypatch.context() as patch:
            real = getattr(rescoring_store, writer)
            patch.setattr(rescoring_store, writer, die)
            if (writer == "write_json") is (file == "results.json"):
                with pytest.raises(KeyboardInterrupt):
                    rescoring.rescore(folder)
    report.main([str(folder.parents[3]), "--format", "csv"])
    rows = capsys.readouterr().out.splitlines()[1:]
    if file == "scores.jsonl":
        # Nothing was written yet.
        assert len(rows) == 3
        assert caplog.text == ""
    else:
        assert len(rows) == 2
        assert f"`sah rescore {folder}` scores the answers again" in caplog.text
        with pytest.raises(DamagedResults, match="scores the answers again"):
            read_result(folder)
    assert rescoring.rescore(folder)[1] == 1
    assert read_result(folder).score == 1
    assert all(read_result(other).score == 0 for other in others)


def test_a_copy_is_not_rescored(three, generous, caplog):
    copy = three[0].with_name(f"{three[0].name} (copy)")
    shutil.copytree(three[0], copy)
    before = written(copy)
    rescore.main([str(copy.parents[3])])
    assert written(copy) == before
    assert caplog.text.count(str(copy)) == 1
    assert read_result(three[0]).score == 1


def test_a_folder_without_experiments_is_an_error(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(SystemExit, match="no complete experiment"):
            rescore.main([str(folder)])


# -- examples that changed -----------------------------------------------------------------


def test_corrected_references_are_counted_and_the_scores_name_them(three, monkeypatch, caplog):
    folder = three[0]
    answers = (folder / "predictions.jsonl").read_bytes()
    answered = {one["example_id"]: one for one in map(orjson.loads, answers.splitlines())}

    def correct(example):
        return replace(example, references=("new",)) if example.id == "mock-3" else example

    with_examples(monkeypatch, correct)
    rescoring.rescore(folder)
    assert written(folder)["provenance"]["rescored"]["other_references"] == 1
    assert "1 of 5 examples have other references" in caplog.text
    assert (folder / "predictions.jsonl").read_bytes() == answers
    for line in (folder / "scores.jsonl").read_bytes().splitlines():
        score = orjson.loads(line)
        is_same = score["references_hash"] == answered[score["example_id"]]["references_hash"]
        assert is_same is (score["example_id"] != "mock-3")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"question": "\nWhat else?"}, "another prompt"), ({"max_new_tokens": 4}, "at most 8 tokens")],
)
def test_answers_to_other_prompts_or_limits_are_not_rescored(change, message, three, monkeypatch):
    before = written(three[0])
    with_examples(monkeypatch, lambda example: replace(example, **change))
    with pytest.raises(DamagedResults, match=message):
        rescoring.rescore(three[0])
    assert written(three[0]) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"question": "\nWhat else?"}, "another prompt"),
        ({"references": ("new",)}, "other references"),
        ({"extras": {"groups": ["a"]}}, "other references"),
        ({"max_new_tokens": 4}, "at most 8 tokens, but the limit is 4 now"),
    ],
)
def test_a_change_half_way_is_refused_by_resume(
    change, message, compose, tmp_path, monkeypatch, calls
):
    config = compose(*MOCK, f"output_root={tmp_path}")
    with monkeypatch.context() as patch:
        real, answers = ResultStore.append, []

        def append(store, prediction):
            if len(answers) == 2:
                raise KeyboardInterrupt
            answers.append(prediction)
            real(store, prediction)

        patch.setattr(ResultStore, "append", append)
        with pytest.raises(KeyboardInterrupt):
            compute(config, [])
    path = directory(config) / "predictions.jsonl"
    before = path.read_bytes()
    with_examples(monkeypatch, lambda example: replace(example, **change))
    with pytest.raises(DamagedResults, match=message):
        compute(config, [])
    assert path.read_bytes() == before
    assert not (path.parent / "results.json").exists()
