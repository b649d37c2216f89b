"""Each check finds its problem, and the findings are reported to people and to programs."""

import dataclasses
import io

import orjson
import pytest
from rich.console import Console

from sah.cli.doctor import show
from sah.cli.main import main
from sah.doctor.examination import examine
from sah.doctor.finding import error, ok, warning
from sah.doctor.memory_estimate import check_memory
from sah.doctor.numerics import check_numbers
from sah.doctor.prompt_checks import (
    check_answer_limit,
    check_bos,
    check_eos,
    check_needles,
    check_split,
)
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel
from sah.types import Example

BASE = ("model=tiny", "benchmark.context_tokens=512")


@pytest.fixture
def example() -> Example:
    return Example(
        id="x",
        task="t",
        context="The sky is blue. The special magic number is 1234567. Here we go.",
        question="\nWhat is the special magic number?",
        references=("1234567",),
        max_new_tokens=32,
    )


def by_check(findings):
    return {finding.check: finding for finding in findings}


def test_every_check_of_a_healthy_experiment_is_ok():
    findings = examine([*BASE, "attention=sparse"])
    assert {finding.status for finding in findings} == {"ok"}
    assert set(by_check(findings)) == {
        *("configuration", "weights", "data", "BOS", "template", "needle", "answer limit"),
        *("EOS", "positions", "full budget", "density", "attention", "memory"),
    }


def test_a_wrong_override_is_an_error_and_ends_the_examination():
    (finding,) = examine(["modle=tiny"])
    assert (finding.check, finding.status) == ("configuration", "error")


def test_missing_weights_are_an_error(tmp_path):
    findings = examine(["model=hf", f"model.name_or_path={tmp_path}"])
    assert by_check(findings)["weights"].status == "error"
    assert findings[-1].check == "weights"


def test_a_context_too_short_for_the_benchmark_is_an_error():
    findings = examine(["model=tiny", "benchmark.context_tokens=20"])
    assert by_check(findings)["data"].status == "error"


def test_settings_that_do_not_fit_the_model_are_found():
    findings = examine([*BASE, "attention=sparse", "sparse_attention.dense_layers=[7]"])
    assert by_check(findings)["attention"].status == "error"
    assert "dense_layers" in by_check(findings)["attention"].message


def test_a_doubled_bos_is_an_error(tiny, example):
    prompt = tiny.prompts.encode(example)
    bos = tiny.prompts.tokenizer.bos_token_id
    assert check_bos(tiny, [(example, prompt)]).status == "ok"
    doubled = dataclasses.replace(prompt, context_ids=[bos, *prompt.context_ids])
    assert "2 BOS tokens" in check_bos(tiny, [(example, doubled)]).message


@pytest.mark.parametrize("part", ["context_ids", "question_ids"])
def test_a_prompt_that_lost_a_part_is_an_error(tiny, example, part):
    prompt = tiny.prompts.encode(example)
    assert check_split(tiny, [(example, prompt)]).status == "ok"
    short = dataclasses.replace(prompt, **{part: getattr(prompt, part)[:5]})
    assert check_split(tiny, [(example, short)]).status == "error"


def test_a_needle_that_was_cut_out_is_an_error_and_a_cut_context_a_warning(tiny, example):
    prompt = tiny.prompts.encode(example)
    assert check_needles(tiny, [(example, prompt)]).status == "ok"
    lost = dataclasses.replace(prompt, context_ids=prompt.context_ids[:6], truncated=True)
    assert "1234567" in check_needles(tiny, [(example, lost)]).message
    cut = dataclasses.replace(prompt, truncated=True)
    assert check_needles(tiny, [(example, cut)]).status == "warning"


@pytest.mark.parametrize(("limit", "status"), [(64, "ok"), (2, "error")])
def test_the_answer_limit_must_leave_room_for_the_reference(tiny, example, limit, status):
    prompt = tiny.prompts.encode(example)
    generation = Generation(max_new_tokens=limit)
    assert check_answer_limit(tiny, [(example, prompt)], generation).status == status


def test_references_that_fit_only_one_at_a_time_are_a_warning(tiny, example):
    several = dataclasses.replace(example, references=("1234567",) * 8)
    prompt = tiny.prompts.encode(several)
    finding = check_answer_limit(tiny, [(several, prompt)], Generation(max_new_tokens=10))
    assert finding.status == "warning"


def test_a_model_without_eos_is_an_error(tiny):
    assert check_eos(tiny).status == "ok"
    mute = LanguageModel(tiny.model, tiny.prompts)
    mute.eos_token_ids = frozenset()
    assert check_eos(mute).status == "error"
    # The template ends turns with <|end|>, which is not among the ids then.
    mute.eos_token_ids = frozenset({tiny.prompts.tokenizer.bos_token_id})
    assert check_eos(mute).status == "warning"


def test_a_model_that_cannot_be_measured_is_an_error(tiny, monkeypatch):
    assert {finding.status for finding in check_numbers(tiny)} == {"ok"}
    # What the gate looks at is in tests/models/test_gate.py.
    monkeypatch.setattr(tiny.model.config, "is_encoder_decoder", True)
    (finding,) = check_numbers(tiny)
    assert finding.status == "error"
    assert "encoder-decoder" in finding.message


@pytest.mark.parametrize(
    ("free", "status"), [(10**12, "ok"), (2**28 + 10**6, "warning"), (1000, "error")]
)
def test_the_estimate_is_compared_with_free_memory(
    tiny, example, compose, monkeypatch, free, status
):
    from sah.doctor import memory_estimate as memory
    from sah.execution.experiment import Experiment

    monkeypatch.setattr(memory, "_free_bytes", lambda device: free)
    experiment = Experiment.from_config(compose(*BASE))
    finding = check_memory(experiment, tiny, [tiny.prompts.encode(example)], 32, arms=3)
    assert finding.status == status
    assert "3 arms" in finding.message


def test_the_report_fits_80_columns():
    file = io.StringIO()
    long = "something that takes more words than a line has, and then some more " * 3
    findings = [ok("a", long), error("full budget", long, long), warning("b", "short", "do it")]
    show(findings, Console(file=file, width=80))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("→ do it" in line for line in lines)


@pytest.mark.parametrize(("overrides", "status"), [(BASE, 0), (("modle=tiny",), 1)])
def test_exit_status_and_json_report_errors_to_programs(overrides, status, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sah", "doctor", "--json", *overrides])
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    assert code == status
    found = orjson.loads(capsys.readouterr().out)
    assert {"check", "status", "message", "advice"} == set(found[0])
