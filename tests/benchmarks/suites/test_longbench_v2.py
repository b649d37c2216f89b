"""The prompts of LongBench-v2, and the second request of `cot`."""

from dataclasses import replace
from types import SimpleNamespace

import orjson
import pytest
from pyarrow import parquet

from sah.attention import DenseAttention
from sah.attention.session import AttentionSession
from sah.errors import DatasetError
from sah.execution.answering import inputs_of
from sah.execution.attempts import compute
from sah.models.chat_template import SPLIT
from sah.models.generation import Generation
from sah.results import directory
from sah.types import Example

FORM = 'Format your response as follows: "The correct answer is (insert answer here)".'
QUESTION = "What is the correct answer to this question: who?\nChoices:\n(A) a\n(B) b\n\n"


def examples_of(suite, tiny, subset):
    return suite("longbench_v2", subset=subset).examples(tiny.prompts, seed=0)


def test_the_format_of_the_answer_is_in_the_message_of_the_user(suite, tiny):
    for number, example in enumerate(examples_of(suite, tiny, "0shot")):
        opening = "Please read the following text and answer the question below."
        assert example.context.startswith(f"{opening}\n\n<text>\n{number}: Anna has")
        assert example.context.endswith("\n</text>\n\n")
        assert example.question == QUESTION + FORM
        assert example.answer_prefix == ""
        assert example.follow_up is None


def test_reasoning_is_asked_for_without_a_format_and_then_for_the_choice(suite, tiny):
    opening = "Please read the following text and answer the questions below.\n\n"
    for example in examples_of(suite, tiny, "cot"):
        assert example.context.startswith(f"{opening}<text>\n")
        assert example.question == f"{QUESTION}Let’s think step by step:"
        assert example.answer_prefix == ""
        assert example.max_new_tokens == 1044
        assert example.follow_up.before == (
            f"{opening}The text is too long and omitted here.\n\n"
            f"{QUESTION}Let’s think step by step: "
        )
        assert example.follow_up.after == (
            f"\n\nBased on the above, what is the single, most likely answer choice? {FORM}"
        )
        assert example.follow_up.max_new_tokens == 148


def test_rows_without_the_published_texts_are_refused(suite, published, tmp_path, tiny):
    (file,) = published("longbench_v2").rglob("0shot/*.parquet")
    table = parquet.read_table(file).to_pylist()
    (tmp_path / "0shot.jsonl").write_bytes(
        b"\n".join(orjson.dumps({**row, "answer_prefix": "Answer:"}) for row in table)
    )
    with pytest.raises(DatasetError, match=r"0shot-0 .*answer_prefix not with 'Format your"):
        suite("longbench_v2", subset="0shot", path=str(tmp_path)).examples(tiny.prompts, seed=0)


def run(compose, published, root, *overrides):
    config = compose(
        *("model=tiny", "benchmark=longbench_v2", f"benchmark.path={published('longbench_v2')}"),
        *(
            "model.layers=2",
            "benchmark.subset=cot",
            "generation.max_new_tokens=6",
            "metric_logging=off",
        ),
        *(f"output_root={root}", *overrides),
    )
    result = compute(config, [])
    folder = directory(config)
    lines = (folder / "predictions.jsonl").read_bytes().splitlines()
    return result, [orjson.loads(line) for line in lines], folder


def test_the_answer_to_the_second_request_is_scored(compose, published, suite, tiny, tmp_path):
    """The second request is decoded here by itself, as one prompt under dense attention."""
    result, predictions, folder = run(compose, published, tmp_path, "attention=streaming_llm")
    for example, prediction in zip(examples_of(suite, tiny, "cot"), predictions, strict=True):
        asked = example.follow_up
        encoded = tiny.prompts.encode(
            Example(
                id="second",
                task="cot",
                context="",
                question=asked.before + prediction["first_answer"].strip() + asked.after,
                references=(),
                max_new_tokens=6,
            )
        )
        ids = encoded.context_ids + encoded.question_ids
        answer = tiny.answer(
            tiny.prefill([], reserve_tokens=len(ids) + 6),
            ids,
            session=AttentionSession(DenseAttention(), seed=0),
            sampler=Generation().sampler(0, "second", "cpu"),
            max_new_tokens=6,
        )
        assert prediction["text"] == tiny.prompts.decode(answer.answer_ids)
        assert prediction["new_tokens"] <= 6
    assert 0 < result.density < 1
    (line, *_) = (folder / "examples.jsonl").read_bytes().splitlines()
    assert "most likely answer choice" in orjson.loads(line)["follow_up"]["after"]


def test_answers_to_another_second_request_are_not_resumed(suite, tiny):
    (example, *_) = examples_of(suite, tiny, "cot")
    prompt = tiny.prompts.encode(example)
    experiment = SimpleNamespace(generation=Generation())
    changed = [
        replace(example, follow_up=replace(example.follow_up, **{name: value}))
        for name, value in (("before", "x"), ("after", "x"), ("max_new_tokens", 1))
    ]
    hashes = [
        inputs_of(experiment, one, prompt).input_hash
        for one in (example, *changed, replace(example, follow_up=None))
    ]
    assert len({*hashes}) == 5
    assert hashes[-1] == prompt.input_hash


def test_a_batch_follows_up_each_alike(compose, published, tmp_path):
    one, other = (
        run(
            *(compose, published, tmp_path / str(rows)),
            *("attention=dense", f"generation.batch_rows={rows}"),
        )
        for rows in (1, 2)
    )
    texts = [[(line["text"], line["first_answer"]) for line in run[1]] for run in (one, other)]
    assert texts[0] == texts[1]


def test_a_first_answer_with_the_mark_of_the_context_is_followed_up(
    compose, published, tmp_path, monkeypatch
):
    from sah.models.prompts import PromptEncoder

    decode = PromptEncoder.decode
    monkeypatch.setattr(PromptEncoder, "decode", lambda self, ids: SPLIT + decode(self, ids))
    _, predictions, _ = run(compose, published, tmp_path, "attention=dense")
    assert all(SPLIT in prediction["first_answer"] for prediction in predictions)
