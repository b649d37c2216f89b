"""Experiments on a thinking model: what is scored, counted, followed and resumed."""

import copy

import orjson
import pytest

from sah.cli import rescore as rescore_command
from sah.errors import ConfigurationError
from sah.execution.attempts import compute, compute_arms
from sah.models.generation import Generation
from sah.models.prompts import PromptEncoder
from sah.models.tiny import TinyModel, tiny_tokenizer
from sah.report.reading.caveats import caveats
from sah.results import directory
from sah.results.show import show_result
from sah.results.store import read_result

OPENS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
    "{% else %}<think>\n{% endif %}{% endif %}"
)
BASE = ("model=tiny", "benchmark=mock", "attention=dense", "benchmark.max_new_tokens=16")
EOS = 1

# What the model writes to each question of the mock benchmark, after the opened thought.
TEXTS = {
    "mock-0": "A cat?</think>\n\nOtto",
    "mock-1": "I count them one by one, and then again, until there is no room left",
    "mock-2": "</think>Walnut",
    "mock-3": "Night</think>Lisbon is where it leaves, in the evening",
    "mock-4": "Hm",
}


@pytest.fixture
def texts():
    """What the model writes, by example."""
    return dict(TEXTS)


@pytest.fixture(autouse=True)
def thinker(monkeypatch, texts):
    """The tiny model thinks, and writes a script; returns its tokenizer."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.chat_template = OPENS

    def prompts(self):
        return PromptEncoder(
            tokenizer,
            self.max_tokens,
            template_kwargs=self.template_kwargs,
            thinking=self.thinking,
        )

    class Script:
        def __init__(self, ids):
            self.ids = iter([*ids, EOS])

        def choose(self, logits):
            return next(self.ids)

    def sampler(self, seed, example_id, device):
        text = texts[example_id]
        return Script(tokenizer(text, add_special_tokens=False).input_ids)

    monkeypatch.setattr(TinyModel, "prompts", prompts)
    monkeypatch.setattr(Generation, "sampler", sampler)
    return tokenizer


@pytest.fixture
def run(configure):
    """Compute an experiment; return its result, its directory and its predictions by id."""

    def start(*overrides):
        config = configure(*BASE, *overrides)
        result = compute(config, list(overrides))
        return result, directory(config), answers(directory(config))

    return start


def answers(folder):
    records = map(orjson.loads, (folder / "predictions.jsonl").read_bytes().splitlines())
    return {record["example_id"]: record for record in records}


def test_the_answer_after_the_thought_is_scored_and_the_thought_kept_apart(run, capsys):
    result, _, predictions = run()
    assert predictions["mock-0"]["text"] == "Otto"
    assert predictions["mock-0"]["thought"] == "A cat?"
    assert predictions["mock-2"]["text"] == "Walnut"
    assert (predictions["mock-2"]["thought"], predictions["mock-2"]["thought_tokens"]) == ("", 0)
    for name in ("mock-1", "mock-4"):
        assert predictions[name]["text"] == ""
        assert predictions[name]["unfinished_thought"]
        assert predictions[name]["thought"]
    assert predictions["mock-1"]["finish_reason"] == "length"
    assert predictions["mock-4"]["finish_reason"] == "eos"
    # Otto and Walnut are right; what is written about Lisbon is too much.
    assert result.score == 0.4
    assert result.unfinished_thoughts == 2
    tokens = [item["thought_tokens"] for item in predictions.values()]
    assert result.thought_tokens == sum(tokens) / 5
    show_result(result)
    shown = capsys.readouterr().out
    assert "2 of 5 answers empty: unfinished thoughts (see generation.thinking_tokens)\n" in shown
    assert any("2 of 5 answers are empty" in line for line in caveats([result]))


def test_a_budget_ends_thoughts_and_gives_answers_their_whole_limit(run, thinker):
    result, _, predictions = run("generation.thinking_tokens=3")
    end = thinker.convert_tokens_to_ids("</think>")
    for name, text in TEXTS.items():
        ids = thinker(text, add_special_tokens=False).input_ids
        if end in ids[:4]:
            thought, after = ids[: ids.index(end)], ids[ids.index(end) + 1 :]
        else:
            thought, after = ids[:3], ids[3:]
        assert predictions[name]["thought"] == thinker.decode(thought).strip()
        assert predictions[name]["thought_tokens"] == len(thought)
        assert predictions[name]["text"] == thinker.decode(after[:16]).lstrip()
        # The model itself ends this one before its thought is over.
        assert predictions[name]["unfinished_thought"] == (name == "mock-4")
    assert result.unfinished_thoughts == 1
    assert predictions["mock-1"]["new_tokens"] == 3 + 1 + 16


@pytest.mark.parametrize("budget", ["null", "0", "3"])
def test_every_arm_follows_the_dense_thought_and_its_forced_end(configure, budget):
    given = ("protocol=forced", f"generation.thinking_tokens={budget}")
    configs = [configure(*BASE, f"attention={name}", *given) for name in ("dense", "sparse")]
    outcomes = compute_arms([(config, []) for config in configs])
    dense, sparse = (answers(directory(config)) for config in configs)
    for name, prediction in dense.items():
        same = ("text", "thought", "thought_tokens", "unfinished_thought", "new_tokens")
        assert [sparse[name][key] for key in same] == [prediction[key] for key in same]
        forced = prediction["new_tokens"] - len(prediction["dense_agreement"]["kl"])
        assert forced in (0, 1)
    if budget == "0":
        assert all(item["thought_tokens"] == 0 for item in dense.values())
    free = compute(configure(*BASE, given[1], "attention=dense"), [])
    assert answers(free.directory)["mock-0"]["text"] == dense["mock-0"]["text"]
    assert outcomes[0].result.dense_agreement.kl == 0
    assert outcomes[1].result.dense_agreement.tokens == outcomes[0].result.dense_agreement.tokens


@pytest.mark.parametrize("budget", ["null", "3"])
def test_a_batch_gives_the_same_thoughts_and_answers(run, budget):
    given = f"generation.thinking_tokens={budget}"
    one, _, single = run(given, "generation.batch_rows=1")
    other, _, batch = run(given, "generation.batch_rows=3")
    for name in single:
        for key in ("text", "thought", "thought_tokens", "unfinished_thought", "new_tokens"):
            assert batch[name][key] == single[name][key]
    assert other.score == one.score
    assert other.unfinished_thoughts == one.unfinished_thoughts


def test_stored_thoughts_are_resumed_and_rescored(run):
    result, folder, before = run()
    lines = (folder / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "results.json").unlink()
    (folder / "predictions.jsonl").write_bytes(b"".join(lines[:2]))
    resumed, _, after = run()
    for name in before:
        for key in ("text", "thought", "thought_tokens", "unfinished_thought"):
            assert after[name][key] == before[name][key]
    rescore_command.main([str(folder.parents[3])])
    rescored = read_result(folder)
    for one in (resumed, rescored):
        assert one.unfinished_thoughts == result.unfinished_thoughts == 2
        assert one.thought_tokens == result.thought_tokens
        assert one.score == result.score


def test_thinking_can_be_turned_off_in_the_template_or_taken_for_the_answer(run, texts):
    texts.update(dict.fromkeys(TEXTS, "Otto"))
    result, _, predictions = run("+model.template_kwargs.enable_thinking=false")
    assert result.unfinished_thoughts == 0
    assert result.thought_tokens is None
    assert {item["thought"] for item in predictions.values()} == {None}
    assert result.score == 0.2
    result, _, predictions = run("model.thinking=null")
    assert result.unfinished_thoughts == 0
    assert result.score == 0.2


def test_other_marks_can_be_named_on_the_command_line(run, texts):
    texts.update(dict.fromkeys(TEXTS, "[a cat]Otto"))
    result, _, predictions = run('model.thinking={begin: "[", end: "]"}')
    assert {item["thought"] for item in predictions.values()} == {"a cat"}
    assert result.score == 0.2


def test_options_of_the_template_and_of_thoughts_are_part_of_the_identity(configure):
    changes = (
        (),
        ("+model.template_kwargs.enable_thinking=false",),
        ("+model.template_kwargs.enable_thinking=true",),
        ("model.thinking=null",),
        ('model.thinking={begin: "<a>", end: "</a>"}',),
        ("generation.thinking_tokens=3",),
        ("benchmark.chat_template=false",),
        ("benchmark.chat_template=true",),
    )
    assert len({directory(configure(*BASE, *change)) for change in changes}) == len(changes)


def test_a_thinking_budget_that_the_model_cannot_keep_is_refused_before_the_prefill(
    configure, thinker, monkeypatch, calls
):
    from sah.models.language_model import LanguageModel

    prefills = calls(LanguageModel, "prefill")
    with pytest.raises(ConfigurationError, match="thinking_tokens=3 needs the mark"):
        compute(configure(*BASE, "model.thinking=null", "generation.thinking_tokens=3"), [])
    # 8192 tokens are all that the model takes.
    with pytest.raises(ConfigurationError, match="more than the limit of 8192"):
        compute(configure(*BASE, "generation.thinking_tokens=8192"), [])
    assert prefills == []


def test_an_ordinary_template_gives_the_same_answers_with_and_without_recognition(
    run, thinker, monkeypatch
):
    monkeypatch.undo()
    (_, _, found), (_, _, off) = run(), run("model.thinking=null")
    assert [answer_of(item) for item in found.values()] == [
        answer_of(item) for item in off.values()
    ]


def answer_of(record):
    own = ("fingerprint", "checksum")
    return {key: value for key, value in record.items() if "seconds" not in key and key not in own}
