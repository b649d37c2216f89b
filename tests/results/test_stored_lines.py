"""Lines of predictions.jsonl and scores.jsonl: what they belong to, and how damage is noticed."""

import dataclasses
import json
import subprocess
import sys

import orjson
import pytest
from damage import DAMAGES

from sah.errors import DamagedResults
from sah.results.store import ResultStore, is_complete, read_result
from sah.results.stored_lines import Inputs, prediction_line, references_hash
from sah.types import Example, Score


@pytest.fixture
def answered(store, claimed, prediction, folder):
    """Three answers on disk; returns their file."""
    with claimed(store):
        for name in "abc":
            store.append(prediction(name))
    return folder / "predictions.jsonl"


@pytest.fixture
def completed(store, claimed, prediction, scores, result):
    with claimed(store):
        store.append(prediction("a"))
        return store.complete(result(), scores)


# -- resume ----------------------------------------------------------------------------

# As after a kill or a loss of power: their examples are answered again.
DISCARDED = ("empty", "torn", "missing", "a line less", "NUL bytes")


@pytest.mark.parametrize("kind", [k for k in DAMAGES["predictions.jsonl"] if k not in DISCARDED])
def test_resume_refuses_a_damaged_answer_and_changes_nothing(kind, answered, reopen):
    DAMAGES["predictions.jsonl"][kind](answered)
    before = answered.read_bytes() if kind.endswith(("null", "twice", "arm", "edited")) else None
    with pytest.raises((DamagedResults, OSError), match=r"predictions\.jsonl") as caught:
        reopen()
    if before is not None:
        assert answered.read_bytes() == before
        assert "resume=false" in str(caught.value)
        assert "line " in str(caught.value)


def test_a_changed_byte_anywhere_in_a_line_is_refused(answered, reopen):
    """Whatever the byte: JSON that is still valid does not hide it."""
    first, second, third = answered.read_bytes().splitlines(keepends=True)
    for place in range(0, len(second) - 1, 3):
        changed = bytearray(second)
        changed[place] = ord("1") if changed[place] != ord("1") else ord("2")
        answered.write_bytes(first + bytes(changed) + third)
        with pytest.raises(DamagedResults, match="line 2"):
            reopen()
    answered.write_bytes(first + second + third)
    assert list(reopen().predictions) == ["a", "b", "c"]


def test_nothing_may_follow_the_checksum(answered, reopen):
    """Of two values of a key, the second would count."""
    first, second, third = answered.read_bytes().splitlines(keepends=True)
    answered.write_bytes(first + second.replace(b'"}\n', b'","text":"right"}\n') + third)
    with pytest.raises(DamagedResults, match="line 2 was edited"):
        reopen()


def test_a_line_of_another_arm_is_refused_by_both_fingerprints(
    answered, reopen, prediction, fingerprint
):
    line = prediction_line(prediction("d"), "0123456789ab")
    answered.write_bytes(answered.read_bytes() + line)
    with pytest.raises(
        DamagedResults, match=f"line 4 belongs to experiment '0123456789ab', not to '{fingerprint}'"
    ):
        reopen()


NOW = {"input_hash": "0" * 24, "references_hash": "right", "token_limit": 20}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"input_hash": "1" * 24}, "'b' with another prompt"),
        ({"references_hash": "corrected"}, "'b' for other references"),
        ({"token_limit": 30}, "'b' with at most 20 tokens, but the limit is 30 now"),
        ({"token_limit": None}, "'b' with at most 20 tokens, but the limit is None now"),
    ],
)
def test_answers_to_other_inputs_are_refused_by_what_changed(
    change, message, store, claimed, prediction
):
    with claimed(store):
        for name in "ab":
            store.append(prediction(name, references_hash="right", token_limit=20))
        inputs = {"a": Inputs(**NOW), "b": Inputs(**NOW | change), "new": Inputs(**NOW)}
        if message is None:
            store.check_inputs(inputs)
            return
        with pytest.raises(DamagedResults, match=message):
            store.check_inputs(inputs)
        if "references_hash" in change:
            store.check_inputs(inputs, references=False)


# -- references --------------------------------------------------------------------------


def example(**fields):
    values = {
        "id": "a",
        "task": "task",
        "context": "context",
        "question": "What?",
        "references": ("right",),
        "max_new_tokens": 8,
    }
    return Example(**values | fields)


@pytest.mark.parametrize(
    "change",
    [
        {"references": ("wrong",)},
        {"references": ("right", "also")},
        {"references": ()},
        {"task": "other"},
        {"extras": {"all_classes": ["x"]}},
        {"extras": {"pairs": {("a", "b"): 1}}},
    ],
)
def test_what_the_scorer_reads_is_in_the_hash(change):
    assert references_hash(example(**change)) != references_hash(example())


def test_what_it_does_not_read_is_not():
    other = example(context="another", question="Which?", max_new_tokens=9, origin="elsewhere")
    assert references_hash(other) == references_hash(example())


def test_the_hash_is_the_same_in_every_process():
    program = (
        "from sah.results.stored_lines import references_hash\n"
        "from sah.types import Example\n"
        "print(references_hash(Example(id='a', task='t', context='c', question='q', "
        "references=('ü', '\\ud800'), max_new_tokens=1, "
        "extras={'b': {'y', 'x', 'z'}, 'a': 2**70, 'c': ('t',)})))"
    )
    hashes = set()
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(done.stdout)
    assert len(hashes) == 1


# -- scores and results --------------------------------------------------------------------


@pytest.mark.parametrize("kind", DAMAGES["scores.jsonl"])
def test_a_result_whose_scores_are_others_is_not_complete(kind, completed, folder):
    DAMAGES["scores.jsonl"][kind](folder / "scores.jsonl")
    with pytest.raises((DamagedResults, OSError), match=r"scores\.jsonl"):
        is_complete(folder, folder.name)


def test_a_rescore_killed_between_the_two_files_is_noticed(completed, folder, monkeypatch):
    """scores.jsonl is new and results.json is old; the message has the way out."""
    content = (folder / "scores.jsonl").read_bytes()
    (folder / "scores.jsonl").write_bytes(content.replace(b"1.0", b"0.0"))
    with pytest.raises(DamagedResults, match=f"`sah rescore {folder}` scores the answers again"):
        read_result(folder)
    assert read_result(folder, with_scores=False).score == 1


@pytest.mark.parametrize("change", [{"score": 0.5}, {"score": None}, {"n": 2}, {"tasks": {}}])
def test_a_result_that_is_not_the_mean_of_its_scores_is_refused(change, completed, folder):
    path = folder / "results.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | change))
    with pytest.raises(DamagedResults, match=r"results\.json was edited.*sah rescore"):
        read_result(folder)


def test_the_digest_is_of_the_file_as_written(completed, folder):
    document = orjson.loads((folder / "results.json").read_bytes())
    assert document["scores_digest"] == completed.scores_digest
    assert read_result(folder).scores_digest == completed.scores_digest


def test_scores_without_public_references_agree_with_a_null_mean(
    store, claimed, prediction, result
):
    scores = [Score(example_id="a", task="task", score=None)]
    with claimed(store):
        store.append(prediction("a"))
        task = dataclasses.replace(result().tasks["task"], score=None)
        store.complete(dataclasses.replace(result(), score=None, tasks={"task": task}), scores)
    assert store.result().score is None


@pytest.mark.parametrize("kind", DAMAGES["results.json"])
def test_a_damaged_result_is_not_complete(kind, completed, folder):
    """Except where only the copy of the configuration was edited, which reports notice."""
    DAMAGES["results.json"][kind](folder / "results.json")
    if kind in ("config edited", "not UTF-8") and read_is_fine(folder):
        return
    with pytest.raises((DamagedResults, OSError), match=r"results\.json|scores\.jsonl"):
        is_complete(folder, folder.name)


def read_is_fine(folder):
    try:
        json.loads((folder / "results.json").read_bytes())
    except ValueError:
        return False
    return True


def test_results_without_a_digest_are_read(completed, folder, fingerprint):
    """Schema 2 did not have one."""
    path = folder / "results.json"
    document = orjson.loads(path.read_bytes())
    del document["scores_digest"]
    path.write_bytes(orjson.dumps(document))
    with pytest.raises(DamagedResults):
        read_result(folder)
    document["schema"] = 2
    path.write_bytes(orjson.dumps(document))
    (folder / "scores.jsonl").unlink()
    assert read_result(folder).score == 1
    assert ResultStore(folder, fingerprint).result().score == 1
