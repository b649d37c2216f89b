"""Checks of prompts: BOS, chat template, needles, answer limit, thoughts and EOS."""

import re
from collections.abc import Sequence
from typing import Any

from sah.doctor.finding import Finding, counted, error, ok, warning
from sah.errors import TokenizerError
from sah.models.chat_template import ChatTemplate
from sah.models.generation import Generation
from sah.models.language_model import LanguageModel
from sah.models.prompts import EncodedPrompt
from sah.types import Example

Encoded = Sequence[tuple[Example, EncodedPrompt]]

# Common names of the option that turns thinking on and off.
_SWITCHES = ("enable_thinking", "thinking")

# Thoughts are seldom shorter than a few hundred tokens.
_SHORT_FOR_A_THOUGHT = 512


def check_bos(model: LanguageModel, encoded: Encoded) -> Finding:
    """Check that prompts begin with at most one BOS, as a second one lowers scores."""
    tokenizer: Any = model.prompts.tokenizer
    bos = tokenizer.bos_token_id
    if bos is None:
        return ok("BOS", "the tokenizer has no BOS")
    for example, prompt in encoded:
        ids = [*prompt.context_ids, *prompt.question_ids]
        leading = next((n for n, token in enumerate(ids) if token != bos), len(ids))
        if leading > 1:
            return error(
                "BOS",
                f"the prompt of {example.id} begins with {leading} BOS tokens",
                "chat template and tokenizer both add one; set "
                "+model.tokenizer_kwargs.add_bos_token=false",
            )
        if leading == 0 and tokenizer("a").input_ids[:1] == [bos]:
            return error(
                "BOS",
                f"the prompt of {example.id} has no BOS, although the tokenizer adds one",
                "please report this: the prompt encoder lost it",
            )
    return ok("BOS", f"at most one at the beginning ({tokenizer.bos_token!r})")


def check_split(model: LanguageModel, encoded: Encoded) -> Finding:
    """Check that the two parts of a prompt contain the whole context and the whole question."""
    moved = 0
    for example, prompt in encoded:
        before, after = _decoded(model, prompt.context_ids), _decoded(model, prompt.question_ids)
        if not prompt.truncated and _bare(example.context) not in _bare(before):
            return _lost(example, "the context is missing from the first part of the prompt")
        if _bare(example.question) not in _bare(after):
            return _lost(example, "the question is missing from the second part of the prompt")
        whole = model.prompts.tokenizer(before + after, add_special_tokens=False).input_ids
        moved += list(whole) != [*prompt.context_ids, *prompt.question_ids]
    if moved:
        return ok(
            "template",
            f"context and question are complete, but {moved} of "
            f"{counted(len(encoded), 'prompt')} would be tokenised differently as a whole",
        )
    return ok("template", "context and question are complete, and tokenised as in the whole prompt")


def check_needles(model: LanguageModel, encoded: Encoded) -> Finding:
    """Check that references in a context are still in it after the context is cut to fit."""
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
            f"{cut} of {counted(len(encoded), 'context')} cut to fit the model",
            "scores will be those of shorter contexts; choose a model with a longer context",
        )
    return ok("needle", f"no context is cut; {counted(found, 'reference')} found in the contexts")


def check_answer_limit(model: LanguageModel, encoded: Encoded, generation: Generation) -> Finding:
    """Check that the token limit of answers leaves room for the references."""
    for example, _ in encoded:
        limit = generation.token_limit(example.max_new_tokens)
        lengths = model.prompts.token_counts([f" {text}" for text in example.references])
        if lengths and min(lengths) > limit:
            return error(
                "answer limit",
                f"{example.id}: the shortest reference has {min(lengths)} tokens, but answers are "
                f"limited to {limit}",
                "raise generation.max_new_tokens",
            )
        if sum(lengths) > limit:
            return warning(
                "answer limit",
                f"{example.id}: all references together have {sum(lengths)} tokens, but answers "
                f"are limited to {limit}",
                "raise generation.max_new_tokens if all of them are expected",
            )
    return ok("answer limit", "long enough for the references")


def check_thoughts(model: LanguageModel, encoded: Encoded, generation: Generation) -> Finding:
    """Check that thoughts have room: a thought that fills the answer limit leaves no answer."""
    prompts = model.prompts
    if prompts.marks is None:
        return ok("thoughts", "the model has no thinking marks, or model.thinking is null")
    budget = generation.thinking_tokens
    if budget is not None:
        return ok("thoughts", f"end after at most {budget} tokens; only what follows is scored")
    end = prompts.marks.end
    thinking = [
        (generation.token_limit(example.max_new_tokens), prompt.opens_thought)
        for example, prompt in encoded
        if not example.is_continuation and not prompt.closes_thought
    ]
    if not thinking:
        return ok("thoughts", "the prompts begin the answer, so that the model does not think")
    limit, opened = min(thinking), any(opens for _, opens in thinking)
    advice = "limit thoughts with generation.thinking_tokens=1024"
    switch = next((name for name in _SWITCHES if name in prompts.options), None)
    if switch is not None:
        advice = f"turn thinking off with +model.template_kwargs.{switch}=false, or {advice}"
    shared = (
        f"thought and answer share a limit of {limit[0]} tokens, and an unfinished thought is an "
        "empty answer"
    )
    if opened:
        begin = prompts.marks.begin
        return warning(
            "thoughts", f"the chat template opens a thought with {begin!r}; {shared}", advice
        )
    if limit[0] < _SHORT_FOR_A_THOUGHT:
        return warning("thoughts", f"the model may think before it answers; {shared}", advice)
    return ok("thoughts", f"what follows {end!r} is scored; the limit leaves room for a thought")


def check_eos(model: LanguageModel) -> Finding:
    """Check that there is an EOS, and that the chat template's end of turn is one."""
    tokenizer: Any = model.prompts.tokenizer
    if not model.eos_token_ids:
        return error(
            "EOS",
            "neither model nor tokenizer has one, so that every answer runs to its token limit",
            "set eos_token_id in the model's generation_config.json",
        )
    names = ", ".join(tokenizer.convert_ids_to_tokens(sorted(model.eos_token_ids)))
    if model.prompts.template is not None:
        ending = _end_of_turn(tokenizer, model.prompts.template)
        if ending is not None and ending not in model.eos_token_ids:
            token = tokenizer.convert_ids_to_tokens(ending)
            return warning(
                "EOS",
                f"the chat template ends a turn with {token!r}, which does not end an answer "
                f"(only {names} does)",
                "add its id to eos_token_id in the model's generation_config.json",
            )
    return ok("EOS", f"answers end at {names}")


def _end_of_turn(tokenizer: Any, template: ChatTemplate) -> int | None:
    """Return the special token after the assistant's message in the template, if there is one."""
    said = "sunflower"
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": said}]
    try:
        text = template.render(turns, add_generation_prompt=False)
    except TokenizerError:
        # No prompt has an assistant's message: a template that fails on one works.
        return None
    after = text.rpartition(said)[2]
    ids = tokenizer(after, add_special_tokens=False).input_ids
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return next((token for token in ids if token in special), None)


def _lost(example: Example, what: str) -> Finding:
    return error(
        "template",
        f"{example.id}: {what}",
        "check the chat template: it changes or drops the user's message",
    )


def _decoded(model: LanguageModel, ids: Sequence[int]) -> str:
    tokenizer: Any = model.prompts.tokenizer
    return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))


def _bare(text: str) -> str:
    """Remove white space, which some tokenizers do not preserve."""
    return re.sub(r"\s+", "", text)
