"""sah fetch: only what was chosen, and what it took."""

import logging

import pytest

from sah.cli import fetch as fetching


@pytest.fixture
def said(caplog):
    def call(*arguments):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="sah.cli.fetch"):
            fetching.main(list(arguments))
        return [record.getMessage() for record in caplog.records]

    return call


def test_what_is_made_here_needs_nothing(said):
    model, benchmark = said("model=tiny", "benchmark=mock")
    assert model.startswith("model: tiny is made in memory")
    assert benchmark.startswith("benchmark: mock needs nothing")


def test_only_what_was_chosen_is_fetched(said):
    (line,) = said("model=tiny")
    assert line.startswith("model: ")


def test_data_sets_are_read_to_the_end(said, tmp_path):
    (tmp_path / "qasper.jsonl").write_text('{"context": "c", "question": "q"}\n' * 3)
    (line,) = said("benchmark=longbench", "benchmark.subset=qasper", f"benchmark.path={tmp_path}")
    assert line.startswith("benchmark: 3 rows of 1 configurations; files of benchmark.path")


def test_what_cannot_be_had_ends_with_its_reason(said):
    with pytest.raises(SystemExit, match="Xnhyacinth/LongBench"):
        said("benchmark=longbench")
    with pytest.raises(SystemExit, match="usage"):
        said("longbench")
