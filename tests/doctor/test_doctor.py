"""Each check finds its problem, and the findings are reported to people and to programs."""

import copy
import dataclasses
import io
import re
from contextlib import suppress

import orjson
import pytest
from rich.console import Console

from sah.attention import SparseAttention
from sah.attention.eviction.kept import KeptKeys
from sah.attention.eviction.witness import Witness
from sah.attention.prefill import compute
from sah.attention.prefill import reading as prefill_reading
from sah.cli.doctor import show
from sah.cli.main import main
from sah.doctor.examination import examine
from sah.doctor.finding import error, ok, warning
from sah.doctor.memory_estimate import check_memory, estimate_memory
from sah.doctor.numerics import check_numbers
from sah.doctor.prompt_checks import (
    check_answer_limit,
    check_bos,
    check_eos,
    check_needles,
    check_split,
    check_thoughts,
)
from sah.evictors.knorm import KNorm
from sah.evictors.kvzip import KVzip
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder
from sah.models.tiny import TinyModel, tiny_tokenizer
from sah.types import Example

BASE = ("model=tiny", "benchmark.context_tokens=512")


class WatchingKNorm(KNorm):
    """Reads hidden states, as a scorer of kvpress does."""

    witness = Witness(calls=True)


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
        *("thoughts", "EOS", "positions", "full budget", "density", "batches"),
        *("attention", "memory"),
    }


def test_a_wrong_override_is_an_error_and_ends_the_examination():
    (finding,) = examine(["modle=tiny"])
    assert (finding.check, finding.status) == ("configuration", "error")


@pytest.mark.parametrize(
    ("folder", "status", "expected"),
    [
        ("{}/events", "ok", "TensorBoardTracker(folder='{}/events') can store live numbers"),
        ("/dev/null/x", "error", "tracker.folder: cannot write to '/dev/null/x'"),
    ],
)
def test_a_tracker_is_checked_before_a_sweep(tmp_path, folder, status, expected):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    # No model, so that only the configuration is examined.
    nowhere = ["model=hf", f"model.name_or_path={tmp_path}"]
    tracked = [*nowhere, "tracker=tensorboard", f"tracker.folder={folder.format(tmp_path)}"]
    finding = by_check(examine(tracked))["tracker"]
    assert finding.status == status
    assert expected.format(tmp_path) in finding.message
    assert "tracker" not in by_check(examine(nowhere))


def test_missing_weights_are_an_error(tmp_path):
    findings = examine(["model=hf", f"model.name_or_path={tmp_path}"])
    assert by_check(findings)["weights"].status == "error"
    assert findings[-1].check == "weights"


def test_a_context_too_short_for_the_benchmark_is_an_error():
    findings = examine(["model=tiny", "benchmark.context_tokens=20"])
    assert by_check(findings)["data"].status == "error"


def test_an_evictor_answers_as_if_the_evicted_keys_were_masked(monkeypatch):
    finding = by_check(examine([*BASE, "attention=snapkv"]))["attention"]
    assert finding.status == "ok"
    assert "0.248 of the cache held" in finding.message
    copied = KeptKeys.rows_of
    # The right keys with the values of others.
    monkeypatch.setattr(
        KeptKeys, "rows_of", lambda kept, rows: copied(kept, rows).roll(int(rows is kept.key), 2)
    )
    finding = by_check(examine([*BASE, "attention=snapkv"]))["attention"]
    assert finding.status == "error"
    assert "from those with these keys masked" in finding.message


def test_an_eviction_that_repeats_the_context_is_checked():
    finding = by_check(examine([*BASE, "attention=kvzip"]))["attention"]
    assert finding.status == "ok"
    assert "0.248 of the cache held" in finding.message


def test_an_eviction_after_the_question_is_checked_there(monkeypatch):
    overrides = [*BASE, "attention=snapkv", "protocol=question_dense"]
    finding = by_check(examine(overrides))["attention"]
    assert finding.status == "ok"
    assert "0.249 of the cache held" in finding.message
    copied = KeptKeys.rows_of
    monkeypatch.setattr(
        KeptKeys, "rows_of", lambda kept, rows: copied(kept, rows).roll(int(rows is kept.key), 2)
    )
    assert by_check(examine(overrides))["attention"].status == "error"


def test_a_rewriter_is_not_taken_for_a_wrong_eviction():
    rewritten = "+rewriter@sparse_attention.rewrite.think=think"
    finding = by_check(examine([*BASE, "attention=snapkv", rewritten]))["attention"]
    assert finding.status == "ok"
    assert "0.186 of the cache held" in finding.message


def test_a_pattern_computes_what_masked_attention_does(monkeypatch):
    overrides = [*BASE, "attention=a_shape", "sparse_attention.prefill.a_shape.window=20"]
    finding = by_check(examine(overrides))["attention"]
    assert finding.status == "ok"
    assert "density 1.000 on a context of" in finding.message
    assert re.search(r"prefill density 0\.[1-9]\d\d", finding.message)
    right = compute.attend
    # The window is one key too narrow.
    monkeypatch.setattr(
        prefill_reading,
        "attend",
        lambda layer, value, reads, **options: right(
            layer, value, dataclasses.replace(reads, window=19), **options
        ),
    )
    finding = by_check(examine(overrides))["attention"]
    assert finding.status == "error"
    assert "from those with the other keys masked" in finding.message


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


CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SWITCH = "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"


def with_template(tiny, template, **options):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = template
    return LanguageModel(tiny.model, PromptEncoder(tokenizer, 8192, **options))


@pytest.mark.parametrize(
    ("template", "options", "generation", "limit", "status", "parts"),
    [
        (CHAT, {}, {}, 32, "ok", ["no thinking marks"]),
        (CHAT + "<think>", {}, {}, 32, "warning", ["opens a thought with '<think>'", "of 32"]),
        (CHAT + "<think>", {}, {}, 9000, "warning", ["opens a thought"]),
        (CHAT + "<think>", {}, {"thinking_tokens": 100}, 32, "ok", ["at most 100 tokens"]),
        (CHAT + "<think>", {"thinking": None}, {}, 32, "ok", ["model.thinking is null"]),
        (CHAT + SWITCH, {}, {}, 32, "warning", ["may think", "limit of 32 tokens"]),
        (CHAT + SWITCH, {}, {"max_new_tokens": 7}, 32, "warning", ["limit of 7 tokens"]),
        (CHAT + SWITCH, {}, {}, 2000, "ok", ["leaves room"]),
        (
            *(CHAT + SWITCH, {"template_kwargs": {"enable_thinking": False}}, {}, 32, "ok"),
            ["the model does not think"],
        ),
    ],
)
def test_a_thought_without_room_is_a_warning(
    template, options, generation, limit, status, parts, tiny, example
):
    model = with_template(tiny, template, **options)
    example = dataclasses.replace(example, max_new_tokens=limit)
    prompt = model.prompts.encode(example)
    finding = check_thoughts(model, [(example, prompt)], Generation(**generation))
    assert finding.status == status
    for part in parts:
        assert part in finding.message
    if status == "warning":
        assert "generation.thinking_tokens=1024" in finding.advice
        switch = "+model.template_kwargs.enable_thinking=false"
        assert (switch in finding.advice) == ("enable_thinking" in template)


def test_prompts_that_begin_the_answer_leave_no_thought_to_warn_of(tiny, example):
    model = with_template(tiny, CHAT + SWITCH)
    prefixed = dataclasses.replace(example, answer_prefix="Answer:")
    for one, status in ((prefixed, "ok"), (example, "warning")):
        finding = check_thoughts(model, [(one, model.prompts.encode(one))], Generation())
        assert finding.status == status


def test_prompts_without_the_template_open_no_thought(tiny, example):
    model = with_template(tiny, CHAT + "<think>")
    raw = dataclasses.replace(example, chat_template=False)
    finding = check_thoughts(model, [(raw, model.prompts.encode(raw))], Generation())
    assert "opens" not in finding.message


def test_a_template_that_fails_on_an_assistant_s_message_only_is_no_problem(tiny):
    refuses = "{% if messages[-1].role == 'assistant' %}{{ raise_exception('No.') }}{% endif %}"
    assert check_eos(with_template(tiny, CHAT)).status == "ok"
    assert check_eos(with_template(tiny, refuses + CHAT)).status == "ok"


def test_a_template_that_fails_is_an_error_in_its_own_words(monkeypatch):
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.chat_template = "{{ raise_exception('Only in Latin, please.') }}"
    monkeypatch.setattr(TinyModel, "prompts", lambda model: PromptEncoder(tokenizer, 8192))
    found = by_check(examine(BASE))
    assert found["tokenizer"].status == "error"
    assert "Only in Latin, please;" in found["tokenizer"].message
    assert "weights" not in found


def test_a_thinking_budget_that_the_model_cannot_keep_is_an_error():
    found = by_check(examine([*BASE, "generation.thinking_tokens=9"]))
    assert found["data"].status == "error"
    assert "thinking_tokens=9" in found["data"].message


@pytest.mark.parametrize(
    ("free", "status"), [(10**12, "ok"), (2**28 + 10**6, "warning"), (1000, "error")]
)
def test_the_estimate_is_compared_with_free_memory(
    tiny, example, compose, monkeypatch, free, status
):
    from sah.doctor import memory_estimate as memory
    from sah.execution.experiment import Experiment

    monkeypatch.setattr(memory, "_free_bytes", lambda device: free)
    experiment = Experiment.from_config(compose(*BASE, "generation.batch_rows=8"))
    finding = check_memory(experiment, tiny, [tiny.prompts.encode(example)], 32, arms=3)
    assert finding.status == status
    assert "3 arms" in finding.message


def test_the_estimate_counts_the_repeated_part_and_the_hidden_states_that_evictors_read(tiny):
    def estimate(evictor):
        attention = SparseAttention(name="mine", evict={"mine": evictor})
        return estimate_memory(tiny, [attention], 1000, Generation(batch_rows=1))

    plain, config = estimate(KNorm(fraction=0.5)), tiny.model.config
    assert (plain.repetition, plain.remembered) == (0, 0)
    repeating = estimate(KVzip(fraction=0.5, chunk=400))
    assert 400 <= repeating.repetition / tiny.cache_bytes_per_token <= 500
    assert repeating.total == plain.total + repeating.repetition
    watching = estimate(WatchingKNorm(fraction=0.5))
    assert watching.remembered == config.num_hidden_layers * 1000 * config.hidden_size * 4
    assert watching.total == plain.total + watching.remembered


def test_the_report_fits_80_columns():
    file = io.StringIO()
    long = "something that takes more words than a line has, and then some more " * 3
    findings = [ok("a", long), error("full budget", long, long), warning("b", "short", "do it")]
    show(findings, Console(file=file, width=80))
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("→ do it" in line for line in lines)


def test_control_characters_of_a_template_never_reach_the_terminal():
    file = io.StringIO()
    show([error("tokenizer", "it says \x1b[2Jboo", "ignore it")], Console(file=file, width=80))
    assert "\x1b" not in file.getvalue()
    assert "boo" in file.getvalue()


@pytest.mark.parametrize(
    ("overrides", "following"),
    [
        (BASE, f"next: sah run {' '.join(BASE)}\n"),
        (("modle=tiny",), "next: sah doctor modle=tiny "),
    ],
)
def test_the_end_says_what_to_type_next(overrides, following, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sah", "doctor", *overrides])
    with suppress(SystemExit):
        main()
    assert following in capsys.readouterr().out


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
