"""The text that methods are fitted on: prose and needle prompts, or the user's own file."""

from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from sah.benchmarks.haystacks import prose_from
from sah.benchmarks.ruler import Ruler
from sah.errors import ConfigurationError
from sah.models.prompts import PromptEncoder
from sah.seeding import derive

# Named one by one: with a task that RULER gains later, the same command would make another file.
_NEEDLE_TASKS = (
    "niah_single_1",
    "niah_single_2",
    "niah_single_3",
    "niah_multikey_1",
    "niah_multikey_2",
    "niah_multikey_3",
    "niah_multivalue",
    "niah_multiquery",
)

# No verse is shorter; only bounds how many are joined before the text is cut to length.
_LEAST_TOKENS_PER_VERSE = 4


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One sequence that the model reads on its own."""

    token_ids: list[int]
    question_start: int
    """Question and answer begin here: what the default protocol computes sparse. The passage's
    length where it has no question."""


def default_passages(
    prompts: PromptEncoder, *, tokens: int, passage_tokens: int, seed: int
) -> list[Passage]:
    """Verses of the King James Bible and RULER prompts with their answers, in turn.

    The prompts are not those of any benchmark run: a run's seed goes through another derivation.

    Args:
        prompts: of the model.
        tokens: of all passages together; the last one is whole.
        passage_tokens: of the longest passage.
        seed: another one gives other verses and other needles.
    """
    passages: list[Passage] = []
    for number, task in enumerate(cycle(_NEEDLE_TASKS)):
        part = derive(seed, "calibration", number)
        passages.append(_needles(prompts, task, passage_tokens, part))
        passages.append(_prose(prompts, passage_tokens, part))
        if sum(len(passage.token_ids) for passage in passages) >= tokens:
            return passages
    raise AssertionError("cycle never ends")


def passages_of_file(
    prompts: PromptEncoder, path: Path, *, tokens: int, passage_tokens: int
) -> list[Passage]:
    """The beginning of a text file, cut into passages.

    Raises:
        ConfigurationError: if the file is not there, is no UTF-8 text, or is too short for one
            passage.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"text={path} cannot be read as UTF-8 text: {error}") from error
    ids = prompts.tokenizer(text, add_special_tokens=False).input_ids[:tokens]
    starts = range(0, len(ids) - passage_tokens + 1, passage_tokens)
    if not starts:
        raise ConfigurationError(
            f"text={path} gives {len(ids)} tokens, less than one passage of {passage_tokens}; "
            "give a longer text, raise tokens, or lower passage_tokens"
        )
    return [_plain(ids[start : start + passage_tokens]) for start in starts]


def _plain(ids: list[int]) -> Passage:
    return Passage(token_ids=ids, question_start=len(ids))


def _prose(prompts: PromptEncoder, tokens: int, seed: int) -> Passage:
    text = " ".join(islice(prose_from(seed), tokens // _LEAST_TOKENS_PER_VERSE))
    return _plain(prompts.tokenizer(text, add_special_tokens=False).input_ids[:tokens])


def _needles(prompts: PromptEncoder, task: str, tokens: int, seed: int) -> Passage:
    benchmark = Ruler(subset=task, context_tokens=tokens, samples=1)
    (example,) = benchmark.examples(prompts, seed)
    prompt = prompts.encode(example)
    answer = f" {', '.join(example.references)}."
    return Passage(
        token_ids=[
            *prompt.context_ids,
            *prompt.question_ids,
            *prompts.tokenizer(answer, add_special_tokens=False).input_ids,
        ],
        question_start=len(prompt.context_ids),
    )
