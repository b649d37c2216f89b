"""Text that methods are fitted on: prose and needle prompts, or the user's own file."""

from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

from sah.benchmarks.haystacks import prose_from
from sah.benchmarks.ruler import Ruler
from sah.errors import ConfigurationError
from sah.models.prompts import PromptEncoder
from sah.seeding import derive

# Listed explicitly, so that a task added to RULER later does not change the fitted file.
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

# A lower bound; only limits how many verses are joined before the text is cut to length.
_LEAST_TOKENS_PER_VERSE = 4


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A sequence that the model reads on its own."""

    token_ids: list[int]
    question_start: int
    """Start of question and answer, which the default protocol computes with sparse attention;
    the passage's length if it has no question."""


def default_passages(
    prompts: PromptEncoder, *, tokens: int, passage_tokens: int, seed: int
) -> list[Passage]:
    """Make passages of King James Bible verses, alternating with RULER prompts and answers.

    The prompts are never those of a benchmark, whose seeds are derived differently.

    Args:
        prompts: the model's prompt encoder.
        tokens: total of all passages, at least; the last one is not cut.
        passage_tokens: length limit of a passage.
        seed: decides which verses and needles are drawn.
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
    """Cut the beginning of a text file into passages.

    Raises:
        ConfigurationError: if the file cannot be read as UTF-8 text, or is too short for one
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
            f"text={path} gives {len(ids)} tokens, fewer than one passage of {passage_tokens}; "
            "give a longer text, raise tokens, or lower passage_tokens"
        )
    return [_without_question(ids[start : start + passage_tokens]) for start in starts]


def _without_question(ids: list[int]) -> Passage:
    return Passage(token_ids=ids, question_start=len(ids))


def _prose(prompts: PromptEncoder, tokens: int, seed: int) -> Passage:
    text = " ".join(islice(prose_from(seed), tokens // _LEAST_TOKENS_PER_VERSE))
    return _without_question(prompts.tokenizer(text, add_special_tokens=False).input_ids[:tokens])


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
