"""Encoding examples as token ids: one template, one BOS, split at the end of the context."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from sah.errors import ConfigurationError, TokenizerError
from sah.models.prompts import EncodedPrompt, PromptEncoder
from sah.models.tiny import tiny_tokenizer
from sah.types import Example

Make = Callable[..., Any]

BOS = 0
WITH_BOS = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
WITHOUT_BOS = WITH_BOS.removeprefix("{{ bos_token }}")
STRIPPING = WITH_BOS.replace("m['content']", "m['content'] | trim")
SYSTEM = "{{ bos_token }}<|system|>The sky is blue.<|end|>" + WITHOUT_BOS


def ids(text: str) -> list[int]:
    return tiny_tokenizer()(text, add_special_tokens=False).input_ids  # type: ignore[no-any-return]


def encode(tokenizer: Any, example: Any) -> EncodedPrompt:
    return PromptEncoder(tokenizer, None).encode(example)


@pytest.mark.parametrize("adds_bos", [False, True], ids=["plain_tokenizer", "adding_tokenizer"])
@pytest.mark.parametrize(
    "template", [WITH_BOS, WITHOUT_BOS, None], ids=["template_bos", "template", "no_template"]
)
@pytest.mark.parametrize("context", ["The grass is green. ", ""], ids=["context", "no_context"])
def test_there_is_one_bos_if_template_or_tokenizer_add_one(
    context: str, template: str | None, adds_bos: bool, make_tokenizer: Make, make_example: Make
) -> None:
    prompt = encode(make_tokenizer(template, adds_bos=adds_bos), make_example(context))
    everything = prompt.context_ids + prompt.question_ids
    wanted = 1 if adds_bos or template == WITH_BOS else 0
    assert everything.count(BOS) == wanted
    assert everything[:wanted] == [BOS] * wanted


def test_the_prompt_is_split_after_the_context_and_ends_with_the_answer_prefix(
    make_tokenizer: Make, make_example: Make
) -> None:
    example = make_example("The grass is green. ", "What is the answer?", " The answer is")
    prompt = encode(make_tokenizer(WITH_BOS), example)
    assert prompt.context_ids == ids("<|begin|><|user|>The grass is green. ")
    assert prompt.question_ids == ids("What is the answer?<|end|><|assistant|> The answer is")


@pytest.mark.parametrize("template", [WITH_BOS, WITHOUT_BOS, SYSTEM], ids=["bos", "none", "system"])
def test_decoding_both_pieces_gives_the_template_s_text(
    template: str, make_tokenizer: Make, make_example: Make
) -> None:
    tokenizer = make_tokenizer(template)
    prompt = encode(tokenizer, make_example(answer_prefix=" So"))
    message = {"role": "user", "content": "The grass is green. What is the answer?"}
    rendered = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True)
    assert tokenizer.decode(prompt.context_ids + prompt.question_ids) == rendered + " So"


def test_a_template_may_strip_the_message(make_tokenizer: Make, make_example: Make) -> None:
    example = make_example("\n The grass is green. ", " What?\n ", " The")
    prompt = encode(make_tokenizer(STRIPPING), example)
    assert prompt.context_ids == ids("<|begin|><|user|>The grass is green. ")
    assert prompt.question_ids == ids(" What?<|end|><|assistant|> The")


@pytest.mark.parametrize(
    ("template", "times"),
    [
        ("{{ bos_token }}Hello.", 0),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", 2),
    ],
    ids=["dropping", "repeating"],
)
def test_a_template_that_drops_or_repeats_the_message_is_an_error(
    template: str, times: int, make_tokenizer: Make, make_example: Make
) -> None:
    with pytest.raises(TokenizerError, match=f"renders the user's message {times} times"):
        encode(make_tokenizer(template), make_example())


@pytest.mark.parametrize("part", ["context", "question", "answer_prefix"])
@pytest.mark.parametrize("template", [WITH_BOS, None], ids=["template", "no_template"])
def test_text_that_contains_the_split_mark_is_an_error_naming_the_example(
    template: str | None, part: str, make_tokenizer: Make, make_example: Make
) -> None:
    example = make_example(**{part: "The sky \uf8ff is blue."}, id="number 7")
    with pytest.raises(TokenizerError, match=r"number 7 contains U\+F8FF"):
        encode(make_tokenizer(template), example)


def test_without_a_template_the_text_is_encoded_unchanged(
    make_tokenizer: Make, make_example: Make
) -> None:
    prompt = encode(make_tokenizer(None), make_example(answer_prefix=" The"))
    assert prompt.context_ids == ids("The grass is green. ")
    assert prompt.question_ids == ids("What is the answer? The")


def test_a_template_gets_the_same_date_every_day(make_tokenizer: Make, make_example: Make) -> None:
    dated = WITH_BOS.replace(
        "{{ bos_token }}", "{{ bos_token }}{{ date_string or strftime_now('%d %b %Y') }}"
    )
    prompt = encode(make_tokenizer(dated), make_example())
    assert prompt.context_ids == ids("<|begin|>26 Jul 2024<|user|>The grass is green. ")


def test_special_tokens_of_the_template_are_single_ids(
    make_tokenizer: Make, make_example: Make
) -> None:
    prompt = encode(make_tokenizer(WITH_BOS), make_example("", "The"))
    assert len(prompt.context_ids) == 2
    assert len(prompt.question_ids) == len(ids("The")) + 2


def test_a_prompt_does_not_depend_on_earlier_examples(
    make_tokenizer: Make, make_example: Make
) -> None:
    examples = [
        make_example(context, question)
        for context in ("", "The grass is green. ", "The sky is blue. ")
        for question in ("What?", "One.")
    ]
    for adds_bos in (False, True):
        tokenizer = make_tokenizer(None, adds_bos=adds_bos)
        alone = [encode(tokenizer, example) for example in examples]
        encoder = PromptEncoder(tokenizer, None)
        assert [encoder.encode(example) for example in examples] == alone
        assert [encoder.encode(example) for example in reversed(examples)] == alone[::-1]


@pytest.mark.parametrize("template", [WITH_BOS, WITHOUT_BOS, None])
@pytest.mark.parametrize("adds_bos", [False, True])
@pytest.mark.parametrize("context", ["The grass is green. ", ""])
def test_prompt_length_is_the_number_of_ids(
    context: str, adds_bos: bool, template: str | None, make_tokenizer: Make, make_example: Make
) -> None:
    example = make_example(context, answer_prefix=" The")
    encoder = PromptEncoder(make_tokenizer(template, adds_bos=adds_bos), None)
    prompt = encoder.encode(example)
    assert encoder.prompt_length(example) == len(prompt.context_ids) + len(prompt.question_ids)


def test_token_counts_have_no_special_tokens(make_tokenizer: Make) -> None:
    encoder = PromptEncoder(make_tokenizer(WITH_BOS, adds_bos=True), None)
    texts = ["", "The grass is green.", "The"]
    assert encoder.token_counts(texts) == [len(ids(text)) for text in texts]
    assert encoder.token_counts([]) == []


def test_decoding_leaves_special_tokens_out(make_tokenizer: Make) -> None:
    encoder = PromptEncoder(make_tokenizer(WITH_BOS), None)
    assert encoder.decode(ids("<|begin|>The sky<|end|>")) == "The sky"
    assert encoder.decode([]) == ""


def test_the_input_hash_depends_on_every_id_and_not_on_the_end_of_the_context() -> None:
    prompt = EncodedPrompt(context_ids=[1, 2, 3], question_ids=[4, 5])
    everything = [1, 2, 3, 4, 5]
    for end in range(6):
        split = EncodedPrompt(context_ids=everything[:end], question_ids=everything[end:])
        assert split.input_hash == prompt.input_hash
    others = [
        *([*everything[:n], everything[n] + 1, *everything[n + 1 :]] for n in range(5)),
        everything[:4],
        [*everything, 0],
        [0, *everything],
        everything[::-1],
    ]
    hashes = {EncodedPrompt(context_ids=[], question_ids=other).input_hash for other in others}
    assert len(hashes) == len(others)
    assert prompt.input_hash not in hashes


def test_ids_above_32_bits_are_told_apart() -> None:
    one, other = (
        EncodedPrompt(context_ids=[], question_ids=question) for question in ([2**40], [2**40 + 1])
    )
    assert one.input_hash != other.input_hash


def test_a_prompt_that_does_not_fit_is_an_error_with_both_numbers(
    make_tokenizer: Make, make_example: Make
) -> None:
    example = make_example(id="number 7")
    prompt = encode(make_tokenizer(WITH_BOS), example)
    length = len(prompt.context_ids) + len(prompt.question_ids)
    encoder = PromptEncoder(make_tokenizer(WITH_BOS), length + 5)
    assert encoder.fit([example], [prompt], [5]) == [prompt]
    message = (
        f"number 7: {length} prompt tokens and 6 new ones are more than the limit of {length + 5}"
    )
    with pytest.raises(ConfigurationError, match=message):
        encoder.fit([example], [prompt], [6])
    unlimited = PromptEncoder(make_tokenizer(WITH_BOS), None)
    assert unlimited.fit([example], [prompt], [10**9]) == [prompt]


def cuttable(count: int, context: int = 100) -> tuple[list[Example], list[EncodedPrompt]]:
    """Examples of one context, whose questions take 1, 2, … tokens."""
    examples = [
        Example(
            id=f"e{number}",
            task="t",
            context="c",
            question="q",
            references=(),
            max_new_tokens=5,
            may_cut=True,
        )
        for number in range(count)
    ]
    prompts = [
        EncodedPrompt(context_ids=list(range(context)), question_ids=[7] * (number + 1))
        for number in range(count)
    ]
    return examples, prompts


@pytest.mark.parametrize("limit", [20, 21, 57, 106])
def test_a_context_that_may_be_cut_is_cut_in_the_middle(make_tokenizer: Make, limit: int) -> None:
    examples, prompts = cuttable(2)
    cut = PromptEncoder(make_tokenizer(WITH_BOS), limit).fit(examples, prompts, [5, 5])
    kept = limit - 2 - 5
    for before, after in zip(prompts, cut, strict=True):
        assert after.truncated
        assert after.question_ids == before.question_ids
        assert len(after.context_ids) == kept
        begin = next((n for n, token in enumerate(after.context_ids) if token != n), kept)
        assert after.context_ids[begin:] == list(range(100 - (kept - begin), 100))
        assert 0 <= begin - (kept - begin) <= 1, "beginning and end keep equal shares"


def test_a_context_that_fits_is_not_cut(make_tokenizer: Make) -> None:
    examples, prompts = cuttable(2)
    assert PromptEncoder(make_tokenizer(WITH_BOS), 107).fit(examples, prompts, [5, 5]) == prompts


def test_the_smaller_of_the_example_s_and_the_model_s_limit_applies(make_tokenizer: Make) -> None:
    examples, prompts = cuttable(2)
    own = [dataclasses.replace(example, max_tokens=50) for example in examples]
    for limit, length in ((80, 50), (30, 30), (None, 50)):
        (_, cut) = PromptEncoder(make_tokenizer(WITH_BOS), limit).fit(own, prompts, [5, 5])
        assert len(cut.context_ids) + 2 + 5 == length


def test_one_example_that_may_not_be_cut_is_an_error_for_all(make_tokenizer: Make) -> None:
    examples, prompts = cuttable(2)
    examples[0] = dataclasses.replace(examples[0], may_cut=False)
    with pytest.raises(ConfigurationError, match="102 prompt tokens and 5 new ones"):
        PromptEncoder(make_tokenizer(WITH_BOS), 60).fit(examples, prompts, [5, 5])


def test_a_question_longer_than_the_limit_is_an_error(make_tokenizer: Make) -> None:
    examples, prompts = cuttable(1)
    with pytest.raises(ConfigurationError, match="more than the limit of 7"):
        PromptEncoder(make_tokenizer(WITH_BOS), 7).fit(examples, prompts, [5])


def test_a_continuation_gets_no_template(make_tokenizer: Make, make_example: Make) -> None:
    example = make_example(context="In the", question=" beginning", is_continuation=True)
    prompt = encode(make_tokenizer(WITH_BOS), example)
    assert prompt.context_ids == ids("In the")
    assert prompt.question_ids == ids(" beginning")


def test_encoded_text_is_in_the_chat_template_if_it_begins_as_the_template_does(
    make_tokenizer: Make,
) -> None:
    encoder = PromptEncoder(make_tokenizer(WITH_BOS), None)
    inside = encoder.of_context(ids("<|begin|><|user|>The grass is green. "))
    assert inside.chat_template
    assert encoder.repetition(inside, 100)[0] == 2
    for text in ("The grass is green. ", "<|begin|>", "<|begin|><|system|>The sky is blue."):
        assert not encoder.of_context(ids(text)).chat_template
    plain = PromptEncoder(make_tokenizer(None), None).of_context(ids("<|begin|><|user|>The"))
    assert not plain.chat_template
