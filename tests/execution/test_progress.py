"""The progress lines of an experiment whose output is a file."""

import logging

from sah.execution import progress


def test_a_line_includes_the_examples_answered_before_and_their_scores(monkeypatch, caplog):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO), progress.Progress(5, scores=[1.0, 1.0, 0.0]) as shown:
        shown.advance(0.0)
    assert "4 of 5 examples, score so far 0.500, about 0 s left" in caplog.text


def test_the_last_example_gets_no_line(monkeypatch, caplog):
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.0)
    with caplog.at_level(logging.INFO), progress.Progress(1, scores=[]) as shown:
        shown.advance(1.0)
    assert not caplog.records
