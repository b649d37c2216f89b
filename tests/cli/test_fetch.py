"""`sah fetch` downloads only what was chosen, and logs what it read."""

import logging

import pytest

from sah.cli import fetch as fetching
from sah.models.tiny import TinyModel


@pytest.fixture
def fetch_log(caplog):
    def call(*arguments):
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="sah.cli.fetch"):
            fetching.main(list(arguments))
        return [record.getMessage() for record in caplog.records]

    return call


def test_generated_models_and_benchmarks_need_no_download(fetch_log):
    model, benchmark = fetch_log("model=tiny", "benchmark=mock")
    assert model.startswith("model: tiny is made in memory")
    assert benchmark.startswith("benchmark: mock needs no download")


def test_only_what_was_chosen_is_fetched(fetch_log):
    (line,) = fetch_log("model=tiny")
    assert line.startswith("model: ")


def test_the_end_says_how_to_check_what_was_fetched(fetch_log, capsys):
    fetch_log("model=tiny", "benchmark=mock", "benchmark.subset=[mock]")
    assert capsys.readouterr().out == (
        "next: sah doctor model=tiny benchmark=mock 'benchmark.subset=[mock]'    # where the "
        "experiment will run, with the same HF_HOME\n"
    )


def test_all_rows_of_a_data_set_are_read(fetch_log, tmp_path):
    (tmp_path / "qasper.jsonl").write_text('{"context": "c", "question": "q"}\n' * 3)
    (line,) = fetch_log(
        "benchmark=longbench", "benchmark.subset=qasper", f"benchmark.path={tmp_path}"
    )
    assert line.startswith("benchmark: 3 rows of 1 configurations; files of benchmark.path")


def test_an_unavailable_data_set_and_a_wrong_usage_end_with_a_message(fetch_log, capsys):
    with pytest.raises(SystemExit, match="Xnhyacinth/LongBench"):
        fetch_log("benchmark=longbench")
    with pytest.raises(SystemExit, match="2"):
        fetch_log("longbench")
    assert "write KEY=VALUE, such as benchmark=longbench" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["model=nope"], ["benchmark=mock", "model=nope"]])
def test_fetch_names_an_unknown_option_with_the_known_ones(arguments):
    with pytest.raises(SystemExit, match=r"^sah fetch: Could not find 'model/nope'.* smollm2"):
        fetching.main(arguments)


def test_a_number_of_thousands_of_digits_is_one_message():
    with pytest.raises(SystemExit, match=r"^sah fetch: Exceeds the limit"):
        fetching.main(["model=tiny", f"seed={5000 * '9'}"])


def test_a_value_that_must_be_given_is_named():
    with pytest.raises(SystemExit, match=r"model\.name_or_path must be given; set"):
        fetching.main(["model=hf"])
    with pytest.raises(SystemExit, match=r"benchmark\.path must be given; set"):
        fetching.main(["benchmark=jsonl"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError("no route"), "network: no route; run this where the Hub can be reached"),
        (OSError(28, "No space left on device"), "filesystem: .*No space left"),
    ],
)
def test_fetch_without_a_network_or_a_disk_is_one_message(error, expected, monkeypatch):
    def fail(self):
        raise error

    monkeypatch.setattr(TinyModel, "fetch", fail)
    with pytest.raises(SystemExit, match=f"^sah fetch: {expected}"):
        fetching.main(["model=tiny"])


def test_fetch_shows_the_traceback_of_a_mistake_in_the_code(monkeypatch):
    def fail(self):
        raise KeyError("a mistake")

    monkeypatch.setattr(TinyModel, "fetch", fail)
    with pytest.raises(KeyError):
        fetching.main(["model=tiny"])
