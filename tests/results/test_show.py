"""What an experiment says at its end: the command to type next."""

import sys

import pytest

from sah.results.show import show_next


@pytest.fixture
def next_step(make_result, tmp_path, monkeypatch, capsys):
    """The command that is proposed after an experiment, by what was typed."""
    monkeypatch.chdir(tmp_path)

    def call(*typed, attention="sparse", root="outputs", program="run.py"):
        folder = tmp_path / root / "tiny" / attention / "ruler_all" / "0123456789ab"
        monkeypatch.setattr(sys, "argv", [program, *typed])
        show_next(make_result(attention=attention, directory=folder))
        return capsys.readouterr().out.removeprefix("next: ").strip()

    return call


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ((), ""),
        (("model=tiny", "attention=sparse", "resume=false"), "model=tiny "),
        (("sparse_attention.maskers.sink.tokens=16", "seed=1"), "seed=1 "),
        (("masker@sparse_attention.maskers.a=quest", "~sparse_attention.maskers.sink"), ""),
        (("benchmark.path=a b",), "'benchmark.path=a b' "),
    ],
)
def test_first_the_dense_baseline_of_the_same_experiment(typed, kept, next_step):
    assert next_step(*typed) == f"python run.py {kept}attention=dense    # the baseline"
    assert next_step(*typed, program="/bin/sah").startswith(f"sah run {kept}attention=dense")


def test_with_a_baseline_a_comparison(next_step, tmp_path):
    folder = tmp_path / "outputs" / "tiny" / "dense" / "ruler_all" / "ba9876543210"
    folder.mkdir(parents=True)
    assert "attention=dense" in next_step()
    (folder / "results.json").touch()
    assert next_step() == "sah compare"


def test_after_dense_attention_or_a_study_the_table(next_step):
    assert next_step(attention="dense") == "sah report"
    assert next_step("--config-name", "study") == "sah report"
    assert next_step(attention="dense", root="a b/c") == "sah report 'a b/c'"


def test_a_result_is_shown_in_four_lines_with_names_score_costs_and_directory(make_result):
    result = make_result(
        subset=["vt", "cwe"], protocol="forced", stderr=0.25, n=4, density=0.161, resident=1.06
    )
    assert repr(result).splitlines() == [
        "<Result tiny  sparse  ruler vt, cwe  (forced)",
        " score 0.500 (stderr 0.250, n=4)",
        " density 0.161, resident 1.060",
        " outputs/tiny/sparse/ruler_all/0123abcd>",
    ]


def test_a_result_without_references_or_queries_shows_no_number_for_them(make_result):
    shown = repr(make_result(model="my\x1b[2J", score=None, n=3)).splitlines()
    assert shown[0].startswith("<Result my\\x1b[2J  sparse")
    assert shown[1:] == [" score not known (n=3)", " outputs/tiny/sparse/ruler_all/0123abcd>"]
