"""Commits of data sets: which one is read, reported and pinned."""

import re

import pytest
from hydra.utils import instantiate

from sah.benchmarks.suites.rows import Source, load_rows
from sah.benchmarks.suites.ruler_hub import RulerHub
from sah.errors import ConfigurationError, DatasetError
from sah.execution.attempts import compute
from sah.execution.rescoring import rescore

OLD, NEW, OTHER = "a" * 40, "b1" * 20, "c" * 40


def qasper(answer):
    return [{"context": "c", "question": "q", "answers": [answer], "max_new_tokens": 2}]


@pytest.fixture
def two_commits(cache_commit):
    """A cache with an old and a newer commit of a data set."""
    cache_commit("Xnhyacinth/LongBench", "qasper", OLD, qasper("the old answer"))
    cache_commit("Xnhyacinth/LongBench", "qasper", NEW, qasper("the new answer"))


@pytest.mark.parametrize(
    ("revision", "answer", "commit"),
    [(OLD, "the old answer", OLD), (NEW, "the new answer", NEW), ("main", "the new answer", NEW)],
)
def test_the_requested_commit_is_read_without_a_network(
    revision, answer, commit, two_commits, suite, tiny
):
    benchmark = suite("longbench", subset="qasper", path=None, revision=revision)
    (example,) = benchmark.examples(tiny.prompts, seed=0)
    assert example.references == (answer,)
    assert example.origin == f"Xnhyacinth/LongBench@{commit}"


def test_an_uncached_commit_is_an_error_and_never_replaced_by_another(two_commits, suite, tiny):
    benchmark = suite("longbench", subset="qasper", path=None, revision=OTHER)
    with pytest.raises(DatasetError, match=rf"{OTHER} is not on this machine, only {NEW}"):
        benchmark.examples(tiny.prompts, seed=0)
    assert not benchmark.is_here()


def test_a_branch_is_reported_with_the_override_that_pins_the_cached_commit(two_commits, suite):
    moving = suite("longbench", subset="qasper", path=None, revision="main")
    note = f"revision main is not pinned to a commit; pin it with benchmark.revision={NEW}"
    assert moving.is_here()
    assert moving.revision_note() == note
    assert moving.fetch() == f"1 rows of 1 configurations; {note}"
    pinned = suite("longbench", subset="qasper", path=None, revision=NEW)
    assert pinned.fetch() == "1 rows of 1 configurations; pinned to a commit"


def test_no_pin_is_offered_for_configurations_at_different_commits(
    two_commits, cache_commit, suite
):
    cache_commit("Xnhyacinth/LongBench", "trec", OTHER, qasper("another answer"))
    moving = suite("longbench", subset=["qasper", "trec"], path=None, revision="main")
    assert moving.revision_note() == "revision main is not pinned to a commit"


def test_each_data_set_of_a_suite_is_pinned_to_its_own_commit(cache_commit, suite, compose, tiny):
    row = {**qasper("Otto")[0], "answer_prefix": ""}
    for number, corpus in enumerate(("nq", "quest")):
        cache_commit(f"f20180301/loft-rag-{corpus}-32k", "default", f"{number}b" * 20, [row])
    moving = suite("loft", subset=["nq_32k", "quest_32k"], path=None)
    found = re.search(r"pin it with '(benchmark\.revision=.*)'", moving.fetch())
    assert found is not None
    config = compose("benchmark=loft", "benchmark.subset=[nq_32k,quest_32k]", found[1])
    pinned = instantiate(config.benchmark, _convert_="all")
    assert pinned.revision_note() == "pinned to a commit"
    assert {example.origin for example in pinned.examples(tiny.prompts, seed=0)} == {
        f"f20180301/loft-rag-nq-32k@{'0b' * 20}",
        f"f20180301/loft-rag-quest-32k@{'1b' * 20}",
    }


def test_pinning_a_data_set_that_the_suite_does_not_read_is_an_error():
    with pytest.raises(ConfigurationError, match=r"names simonjegou/rules; .* simonjegou/ruler"):
        RulerHub(revision={"simonjegou/rules": OLD})


def test_a_pin_of_one_collection_does_not_apply_to_the_other(suite):
    assert suite("ruler_hub", path=None).revision_note() == "pinned to a commit"
    other = suite("ruler_hub", path=None, length="16k")
    assert other.revision_note() == "revision main is not pinned to a commit"


def test_the_commit_is_read_from_the_path_of_a_snapshot_folder(tmp_path):
    folder = tmp_path / "datasets--x--y" / "snapshots" / OLD
    folder.mkdir(parents=True)
    (folder / "qasper.jsonl").write_text('{"a": 1}\n')
    (tmp_path / "link").symlink_to(folder)
    source = Source(dataset="x/y", config="qasper")
    for path in (folder, tmp_path / "link"):
        assert load_rows(source, path=str(path), revision="main").commit == OLD
    assert load_rows(source, path=str(tmp_path), revision="main").commit is None


def test_results_name_the_commit_and_cannot_be_rescored_with_another(
    two_commits, compose, tmp_path
):
    options = ("model=tiny", "benchmark=longbench", "benchmark.subset=qasper", "attention=dense")
    config = compose(*options, "benchmark.revision=main", f"output_root={tmp_path}/outputs")
    result = compute(config, [])
    assert result.provenance.data == [f"Xnhyacinth/LongBench@{NEW}"]
    assert result.settings["benchmark.revision.Xnhyacinth/LongBench"] == NEW
    assert rescore(result.directory) == (result.score, result.score)
    newest = next((tmp_path / "datasets").glob(f"*/qasper/*/{NEW}"))
    newest.rename(newest.with_name(OTHER))
    with pytest.raises(DatasetError, match=rf"commit {NEW} is not on this machine, only {OTHER}"):
        rescore(result.directory)
