"""Synthetic passkey prompts: words hidden in a long text, and asked for one after the other."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from sah.benchmarks.fitting import TokenCounts
from sah.benchmarks.haystacks import prose_from
from sah.benchmarks.prompt_budget import Budget
from sah.errors import ConfigurationError
from sah.models.prompts import PromptEncoder
from sah.seeding import derive
from sah.types import Example

# The radio alphabet, as in github.com/mit-han-lab/duo-attention.
_WORDS = (
    *("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india"),
    *("juliett", "kilo", "lima", "mike", "november", "oscar", "papa", "quebec", "romeo"),
    *("sierra", "tango", "uniform", "victor", "whiskey", "xray", "yankee", "zulu"),
)
_ORDINALS = (
    *("first", "second", "third", "fourth", "fifth"),
    *("sixth", "seventh", "eighth", "ninth", "tenth"),
)
MOST_PASSKEYS = len(_ORDINALS)

# Passkeys are hidden between these shares of the text, as in the authors' code.
_DEPTHS = (0.05, 0.95)


@dataclass(frozen=True, kw_only=True)
class PasskeyPassage:
    """A text with hidden passkeys, and the answer that repeats all of them."""

    context_ids: list[int]
    question_ids: list[int]
    """The question and the whole answer; they follow the context."""
    passkeys: list[range]
    """Where the tokens of each passkey are in `question_ids`."""

    @property
    def length(self) -> int:
        """Tokens of context, question and answer."""
        return len(self.context_ids) + len(self.question_ids)

    @property
    def predicting(self) -> list[int]:
        """The tokens of `question_ids` before each token of a passkey, which predict it."""
        return [position - 1 for passkey in self.passkeys for position in passkey]


def passkey_passages(
    prompts: PromptEncoder,
    *,
    text: str | None,
    tokens: int,
    passage_tokens: int,
    passkeys: int,
    words: int,
    seed: int,
) -> list[PasskeyPassage]:
    """Make passages with passkeys hidden in a text.

    Args:
        prompts: the model's prompt encoder.
        text: a text file, of which each passage takes other lines; None: verses of the King James
            Bible.
        tokens: total of all passages, at least.
        passage_tokens: length limit of a passage, answer included.
        passkeys: hidden in each passage, at most MOST_PASSKEYS.
        words: of a passkey.
        seed: decides which passkeys and verses are drawn.

    Raises:
        ConfigurationError: if the file cannot be read, or a passage cannot hold its passkeys.
    """
    haystack = prose_from if text is None else _lines_of(Path(text))
    budget = Budget(tokenizer=prompts, counts=TokenCounts(prompts), context_tokens=passage_tokens)
    passages: list[PasskeyPassage] = []
    while sum(passage.length for passage in passages) < tokens:
        draw = random.Random(derive(seed, "passkeys", len(passages)))
        drawn = [" ".join(draw.choices(_WORDS, k=words)) for _ in range(passkeys)]
        passages.append(_passage(prompts, budget, drawn, haystack(draw.randrange(2**32)), draw))
    return passages


def _passage(
    prompts: PromptEncoder,
    budget: Budget,
    passkeys: Sequence[str],
    haystack: Iterator[str],
    draw: random.Random,
) -> PasskeyPassage:
    names = [f"{ordinal} passkey to the vault" for ordinal in _ORDINALS[: len(passkeys)]]
    needles = [
        f"Remember that the {name} is: {passkey}."
        for name, passkey in zip(names, passkeys, strict=True)
    ]
    depths = sorted(draw.uniform(*_DEPTHS) for _ in needles)
    # The pieces are encoded one by one, so that it is known which tokens are those of a passkey.
    leads = [[], *(_ids(prompts, f". The {name} is:") for name in names[1:])]
    pieces = [
        (lead, _ids(prompts, f" {passkey}")) for lead, passkey in zip(leads, passkeys, strict=True)
    ]
    answer_tokens = sum(len(lead) + len(words) for lead, words in pieces)
    units, estimates = budget.enough(haystack)

    def build(count: int) -> Example:
        return Example(
            id="passkeys",
            task="passkeys",
            context=_hidden(needles, depths, units[:count]),
            question="\n\nWhat are the passkeys to the vault that the text mentions?",
            answer_prefix=f"The {names[0]} is:",
            references=tuple(passkeys),
            max_new_tokens=answer_tokens,
        )

    shortest = prompts.prompt_length(build(1)) + answer_tokens
    if shortest > budget.context_tokens:
        raise ConfigurationError(
            f"passage_tokens={budget.context_tokens} is less than the {shortest} tokens of a "
            f"prompt with {len(passkeys)} passkeys and their answer; raise passage_tokens, or "
            "lower passkeys or passkey_words"
        )
    prompt = prompts.encode(budget.fill(build, estimates, least=1))
    question = [*prompt.question_ids, *prompt.after_thought_ids]
    places = []
    for lead, words in pieces:
        start = len(question) + len(lead)
        question += lead + words
        places.append(range(start, len(question)))
    return PasskeyPassage(context_ids=prompt.context_ids, question_ids=question, passkeys=places)


def _hidden(needles: Sequence[str], depths: Sequence[float], units: Sequence[str]) -> str:
    """Insert the needles between units of text, at these shares of the text."""
    parts = list(units)
    for depth, needle in reversed(list(zip(depths, needles, strict=True))):
        parts.insert(int(len(units) * depth), needle)
    return " ".join(parts)


def _ids(prompts: PromptEncoder, text: str) -> list[int]:
    ids: list[int] = prompts.tokenizer(text, add_special_tokens=False).input_ids
    return ids


def _lines_of(path: Path) -> Callable[[int], Iterator[str]]:
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"text={path} cannot be read as UTF-8 text: {error}") from error
    lines = [line.strip() for line in content.splitlines() if line.strip()]
    if not lines:
        raise ConfigurationError(f"text={path} has no text; give another file")
    return lambda start: islice(cycle(lines), start % len(lines), None)
