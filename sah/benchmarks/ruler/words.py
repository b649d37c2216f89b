"""RULER's word-counting tasks: common words in a list (`cwe`), frequent coded words (`fwe`).

Deviations from NVIDIA's scripts:
- Lists longer than the vocabulary of wonderwords continue with pairs of its words (theirs are drawn
  from another list of English words then).
- The coded vocabulary has one word per 50 tokens of prompt and answer (theirs: of the prompt). Its
  rarest words do not occur, so that the texts have the same frequencies.
- The order of the words is drawn for each sample (theirs: by one seed for all samples).
"""

import math
import random
import string
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import overload

from sah.benchmarks.drawing import distinct
from sah.benchmarks.haystacks import random_word, words
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.ruler.tasks import TASKS
from sah.types import Example

COMMON_WORDS = 10

_CWE_TASK = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n{text}\n"
)
_CWE_QUESTION = "Question: What are the 10 most common words in the above list?"
_CWE_PREFIX = " Answer: The top 10 words that appear most often in the list are:"

_FWE_TASK = (
    "Read the following coded text and track the frequency of each coded word. Find the three "
    "most frequently appeared coded words. {text}\n"
)
_FWE_QUESTION = (
    "Question: Do not provide any explanation. Please ignore the dots '....'. What are the three "
    "most frequently appeared words in the above coded text?"
)
_FWE_PREFIX = (
    " Answer: According to the coded text above, the three most frequently appeared words are:"
)
_LETTERS = 6
_EXPONENT = 2.0
# The zeta function at the exponent.
_ZETA = math.pi**2 / 6
# With fewer words, the third and fourth could be equally frequent.
_FEWEST_WORDS = 74


def common_words_example(number: int, budget: Budget, seed: int) -> Example:
    """Generate one sample of `cwe`: ten frequent words among rare ones.

    As published, frequent words occur 30 times and rare ones 3 times, after a solved list of 40
    words (10 and 3 times); below 4,096 tokens 6 times and once, after a solved list of 20 words
    (3 times and once).

    Raises:
        ConfigurationError: if the ten words do not fit into the budget.
    """
    draw = random.Random(seed)
    short = budget.context_tokens < 4096
    often, rarely = (6, 1) if short else (30, 3)
    solved = _solved_list(draw, *((20, 3, 1) if short else (40, 10, 3)))
    # Every word occurs at least `rarely` times.
    vocabulary, _ = budget.counts.enough_units(_vocabulary(draw), budget.context_tokens // rarely)
    order = draw.getrandbits(63)

    def build(count: int) -> Example:
        listed = _numbered(vocabulary[:count], often, rarely, random.Random(order))
        return Example(
            id=f"cwe-{number}",
            task="cwe",
            context=f"{solved}\n{_CWE_TASK.format(text=listed)}",
            question=_CWE_QUESTION,
            answer_prefix=_CWE_PREFIX,
            references=tuple(vocabulary[:COMMON_WORDS]),
            max_new_tokens=TASKS["cwe"].max_new_tokens,
        )

    repeats = [often if rank < COMMON_WORDS else rarely for rank in range(len(vocabulary))]
    entries = list(accumulate(repeats))
    numbers = list(accumulate(budget.counts.of([f" {n}." for n in range(1, entries[-1] + 1)])))
    each = budget.counts.of([f" {word}" for word in vocabulary])
    tokens = accumulate(count * times for count, times in zip(each, repeats, strict=True))
    estimates = [numbers[last - 1] + spent for last, spent in zip(entries, tokens, strict=True)]
    return budget.fill(build, estimates, least=COMMON_WORDS)


def _vocabulary(draw: random.Random) -> Iterator[str]:
    """Yield different words endlessly, in random order."""
    known = sorted({*words("noun"), *words("adjective"), *words("verb")})
    draw.shuffle(known)
    yield from known
    used = set(known)
    while True:
        (pair,) = distinct(1, lambda: random_word(draw), used)
        used.add(pair)
        yield pair


def _numbered(chosen: Sequence[str], often: int, rarely: int, order: random.Random) -> str:
    listed = [*chosen[:COMMON_WORDS]] * often + [*chosen[COMMON_WORDS:]] * rarely
    order.shuffle(listed)
    return " ".join(f"{number}. {word}" for number, word in enumerate(listed, start=1))


def _solved_list(draw: random.Random, count: int, often: int, rarely: int) -> str:
    known = sorted({*words("noun"), *words("adjective"), *words("verb")})
    chosen = draw.sample(known, count)
    prompt = _CWE_TASK.format(text=_numbered(chosen, often, rarely, draw))
    answer = " ".join(f"{n}. {word}" for n, word in enumerate(chosen[:COMMON_WORDS], start=1))
    return f"{prompt}{_CWE_QUESTION}{_CWE_PREFIX} {answer}"


def frequent_words_example(number: int, budget: Budget, seed: int) -> Example:
    """Generate one sample of `fwe`: coded words whose frequencies follow a zeta distribution.

    As published, the exponent is 2, the vocabulary has one word per 50 tokens of the budget, and
    the most frequent word is replaced by dots, which do not count.

    Raises:
        ConfigurationError: if the budget is too small for the top frequencies to differ.
    """
    draw = random.Random(seed)
    size = max(budget.context_tokens // 50, 5)
    coded = distinct(size, lambda: "".join(draw.choices(string.ascii_lowercase, k=_LETTERS)))
    vocabulary = ["...", *coded[1:]]
    order = draw.getrandbits(63)

    def build(count: int) -> Example:
        frequencies = zip(vocabulary, _frequencies(count), strict=False)
        text = [word for word, times in frequencies for _ in range(times)]
        random.Random(order).shuffle(text)
        return Example(
            id=f"fwe-{number}",
            task="fwe",
            context=_FWE_TASK.format(text=" ".join(text)),
            question=_FWE_QUESTION,
            answer_prefix=_FWE_PREFIX,
            references=tuple(vocabulary[1:4]),
            max_new_tokens=TASKS["fwe"].max_new_tokens,
        )

    each = budget.counts.of([f" {word}" for word in vocabulary])
    # The text has nearly `count` words of at least one token each: more than this never fit.
    estimates = _ZetaEstimates(each, most=2 * budget.context_tokens)
    return budget.fill(build, estimates, least=_FEWEST_WORDS)


def _frequencies(count: int) -> Iterator[int]:
    """Yield the frequency of each word in a text of about `count` words, by rank, until it is 0."""
    rank = 1
    while times := int(count * rank**-_EXPONENT / _ZETA):
        yield times
        rank += 1


class _ZetaEstimates(Sequence[float]):
    """Estimated tokens of coded texts by number of words, computed on access."""

    def __init__(self, each: Sequence[int], most: int) -> None:
        self._each = each
        self._most = most

    def __len__(self) -> int:
        return self._most

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[float]: ...
    def __getitem__(self, index: int | slice) -> float | Sequence[float]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not 0 <= index < self._most:
            raise IndexError(index)
        pairs = zip(self._each, _frequencies(index + 1), strict=False)
        return sum(tokens * times for tokens, times in pairs)
