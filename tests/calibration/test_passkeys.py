"""Passkey prompts: what is hidden, where, and which tokens of the answer are passkeys."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sah.calibration.passkeys import PasskeyPassage, passkey_passages
from sah.errors import ConfigurationError

SIZES: dict[str, Any] = {"tokens": 2500, "passage_tokens": 1000, "passkeys": 3, "words": 4}
make = partial(passkey_passages, text=None, seed=0, **SIZES)


def passkeys_of(passage: PasskeyPassage, tokenizer: Any) -> list[str]:
    return [
        tokenizer.decode(passage.question_ids[place.start : place.stop]).strip()
        for place in passage.passkeys
    ]


def test_the_context_says_each_passkey_that_the_answer_repeats(tiny: Any) -> None:
    for passage in make(tiny.prompts):
        context = tiny.prompts.tokenizer.decode(passage.context_ids)
        question = tiny.prompts.tokenizer.decode(passage.question_ids)
        found = passkeys_of(passage, tiny.prompts.tokenizer)
        assert [len(passkey.split()) for passkey in found] == [4, 4, 4]
        for ordinal, passkey in zip(("first", "second", "third"), found, strict=True):
            said = f"the {ordinal} passkey to the vault is: {passkey}."
            assert context.count(f"Remember that {said}") == 1
            assert f"The{said[3:-1]}" in question


def test_each_token_of_a_passkey_is_predicted_by_the_token_before_it(tiny: Any) -> None:
    (passage, *_) = make(tiny.prompts)
    predicted = [passage.question_ids[place + 1] for place in passage.predicting]
    text = tiny.prompts.tokenizer.decode(predicted)
    assert text.split() == " ".join(passkeys_of(passage, tiny.prompts.tokenizer)).split()


def test_passages_fill_their_length_and_the_number_of_tokens(tiny: Any) -> None:
    lengths = [passage.length for passage in make(tiny.prompts)]
    assert max(lengths) <= 1000
    assert sum(lengths) >= 2500 > sum(lengths[:-1])
    assert min(lengths) > 600  # A verse takes up to 300 tokens of the tiny model.


def test_passages_are_those_of_the_seed(tiny: Any) -> None:
    first, again, other = make(tiny.prompts), make(tiny.prompts), make(tiny.prompts, seed=1)
    assert first == again
    assert first != other
    assert len({tuple(passage.question_ids) for passage in first}) == len(first)


def test_passkeys_are_hidden_in_the_lines_of_a_file(tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("The sky is blue.\n\nThe grass is green.\n")
    for passage in make(tiny.prompts, text=str(tmp_path / "text.txt")):
        context = tiny.prompts.tokenizer.decode(passage.context_ids)
        for sentence in ("The sky is blue.", "The grass is green."):
            context = context.replace(sentence, "")
        assert "vault" in context
        assert len(context.split()) < 3 * 20


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "cannot be read"), (b"\xff", "UTF-8"), (b"\n", "has no text")]
)
def test_a_file_without_text_is_refused_by_name(
    content: bytes | None, expected: str, tiny: Any, tmp_path: Path
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=rf"text\.txt.* {expected}"):
        make(tiny.prompts, text=str(path))


def test_passages_too_short_for_their_passkeys_are_refused(tiny: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"passage_tokens=100 .* 3 passkeys .* raise"):
        make(tiny.prompts, passage_tokens=100)
