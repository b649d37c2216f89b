"""Checks of prompts: BOS, the template's split, needles and questions, answer limits, EOS."""

import re
from collections.abc import Sequence
from typing import Any

from sah.doctor.finding import Finding, error, ok, warning
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel
from sah.models.prompts import EncodedPrompt
from sah.types import Example

Encoded = Sequence[tuple[Example, EncodedPrompt]]


def check_bos(model: LanguageModel, encoded: Encoded) -> Finding:
    """One BOS at the beginning, if the tokenizer has one: a second costs points of score."""
    tokenizer: Any = model.prompts.tokenizer
    bos = tokenizer.bos_token_id
    if bos is None:
        return ok("BOS", "the tokenizer has none")
    for example, prompt in encoded:
        ids = [*prompt.context_ids, *prompt.question_ids]
        leading = next((n for n, token in enumerate(ids) if token != bos), len(ids))
        if leading > 1:
            return error(
                "BOS",
                f"the prompt of {example.id} begins with {leading} of them",
                "the chat template and the tokenizer both write it; set add_bos_token=false in "
                "model.tokenizer_kwargs",
            )
        if leading == 0 and tokenizer("a").input_ids[:1] == [bos]:
            return error(
                "BOS",
                f"the prompt of {example.id} has none, and the tokenizer writes one elsewhere",
                "report it: the prompt encoder lost it",
            )
    return ok("BOS", f"one at the beginning at most ({tokenizer.bos_token!r})")


def check_split(model: LanguageModel, encoded: Encoded) -> Finding:
    """The two parts of a prompt hold the context and the question, whole and once."""
    moved = 0
    for example, prompt in encoded:
        before, after = _decoded(model, prompt.context_ids), _decoded(model, prompt.question_ids)
        if not prompt.truncated and _bare(example.context) not in _bare(before):
            return _lost(example, "the context is not in the first part of its prompt")
        if _bare(example.question) not in _bare(after):
            return _lost(example, "the question is not in the second part of its prompt")
        whole = model.prompts.tokenizer(before + after, add_special_tokens=False).input_ids
        moved += list(whole) != [*prompt.context_ids, *prompt.question_ids]
    if moved:
        return ok(
            "template",
            f"split exact; tokenised in one piece, {moved} of {len(encoded)} prompts would have "
            "other tokens at the seam",
        )
    return ok("template", "split exact: both parts together are the whole prompt")


def check_needles(model: LanguageModel, encoded: Encoded) -> Finding:
    """What is asked for is in what the model sees, also where a context was cut."""
    found = cut = 0
    for example, prompt in encoded:
        seen = _bare(_decoded(model, prompt.context_ids))
        cut += prompt.truncated
        for reference in example.references:
            bare = _bare(reference)
            if bare and bare in _bare(example.context):
                found += 1
                if bare not in seen:
                    return error(
                        "needle",
                        f"{example.id}: the reference {reference[:40]!r} was cut out of the "
                        "context",
                        "lower benchmark.context_tokens, or choose a model with a longer context",
                    )
    if cut:
        return warning(
            "needle",
            f"{cut} of {len(encoded)} contexts are cut to fit the model",
            "scores are of shorter contexts; choose a model that takes the whole",
        )
    return ok("needle", f"{found} references are in their contexts, and no context is cut")


def check_answer_limit(model: LanguageModel, encoded: Encoded, generation: Generation) -> Finding:
    """The answer may be as long as the references are."""
    for example, _ in encoded:
        limit = generation.token_limit(example.max_new_tokens)
        lengths = model.prompts.token_counts([f" {text}" for text in example.references])
        if lengths and min(lengths) > limit:
            return error(
                "answer limit",
                f"{example.id}: the shortest reference has {min(lengths)} tokens, the answer may "
                f"have {limit}",
                "raise generation.max_new_tokens",
            )
        if sum(lengths) > limit:
            return warning(
                "answer limit",
                f"{example.id}: all references together have {sum(lengths)} tokens, the answer may "
                f"have {limit}",
                "raise generation.max_new_tokens if all of them are expected",
            )
    return ok("answer limit", "long enough for the references")


def check_eos(model: LanguageModel) -> Finding:
    """The model knows when to stop, and so does its chat template."""
    tokenizer: Any = model.prompts.tokenizer
    if not model.eos_token_ids:
        return error(
            "EOS",
            "neither the model nor the tokenizer has one: every answer runs to its limit",
            "set eos_token_id in the model's generation_config.json",
        )
    names = ", ".join(tokenizer.convert_ids_to_tokens(sorted(model.eos_token_ids)))
    if tokenizer.chat_template:
        ending = _end_of_turn(tokenizer)
        if ending is not None and ending not in model.eos_token_ids:
            token = tokenizer.convert_ids_to_tokens(ending)
            return warning(
                "EOS",
                f"the chat template ends a turn with {token!r}, which does not end an answer "
                f"(only {names} does)",
                "add its id to eos_token_id in the model's generation_config.json",
            )
    return ok("EOS", f"answers end at {names}")


def _end_of_turn(tokenizer: Any) -> int | None:
    """The special token that follows the assistant's words in the template, if one does."""
    said = "sunflower"
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": said}]
    text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    after = text.rpartition(said)[2]
    ids = tokenizer(after, add_special_tokens=False).input_ids
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return next((token for token in ids if token in special), None)


def _lost(example: Example, what: str) -> Finding:
    return error(
        "template",
        f"{example.id}: {what}",
        "look at the chat template: it changes or drops the user's message",
    )


def _decoded(model: LanguageModel, ids: Sequence[int]) -> str:
    tokenizer: Any = model.prompts.tokenizer
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _bare(text: str) -> str:
    """Without white space, which some tokenizers do not keep."""
    return re.sub(r"\s+", "", text)
