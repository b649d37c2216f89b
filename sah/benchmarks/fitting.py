"""Finding the longest prompt that fits into a token budget."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice

from sah.errors import ConfigurationError
from sah.types import Example, PromptTokenizer

# Separators and merges across units make a text shorter or longer than the sum of its units.
_SLACK = 1.25
_BATCH = 256
# After this many steps every other one bisects, so that bad estimates cannot cost a linear search.
_GUESSES = 5


class TokenCounts:
    """Token counts of short texts, each tokenised only once."""

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer
        self._known: dict[str, int] = {}

    def of(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text on its own, without special tokens."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        self._known.update(zip(new, self._tokenizer.token_counts(new), strict=True))
        return [self._known[text] for text in texts]

    def enough_units(
        self, units: Iterator[str], context_tokens: int
    ) -> tuple[list[str], list[int]]:
        """Take units until they are certainly more than fit.

        Returns:
            The units, and estimates of the tokens that the first 1, 2, … of them take.
        """
        taken: list[str] = []
        counts: list[int] = []
        while sum(counts) <= _SLACK * context_tokens:
            batch = list(islice(units, _BATCH))
            if not batch:
                break
            taken += batch
            counts += self.of(batch)
        return taken, list(accumulate(counts))


def fit_units(
    build: Callable[[int], Example],
    estimates: Sequence[float],
    tokenizer: PromptTokenizer,
    *,
    context_tokens: int,
    least: int,
) -> Example:
    """Build the example with the most units whose prompt and answer fit.

    The search is guided by the estimates; whole prompts are tokenised only to confirm a guess,
    three or four of them if the estimates are good.

    Args:
        build: makes the example from a number of units of text.
        estimates: estimated tokens of the first 1, 2, … units, non-decreasing, one for each unit.
        tokenizer: measures the prompt as the model sees it.
        context_tokens: limit of prompt plus answer.
        least: minimum number of units, at least 1.

    Raises:
        ConfigurationError: if even `least` units are too long.
    """

    def length(units: int) -> int:
        example = build(units)
        return tokenizer.prompt_length(example) + example.max_new_tokens

    fits, fits_length = least, length(least)
    if fits_length > context_tokens:
        raise ConfigurationError(
            f"benchmark.context_tokens={context_tokens} is too small: the shortest "
            f"{build(least).task} prompt and its answer take {fits_length} tokens"
        )
    too_long = len(estimates) + 1
    tokens_per_estimate = 1.0
    steps = 0
    while too_long - fits > 1:
        steps += 1
        if steps > _GUESSES and steps % 2:
            guess = (fits + too_long) // 2
        else:
            spare = (context_tokens - fits_length) / tokens_per_estimate
            guess = bisect_right(estimates, estimates[fits - 1] + spare)
            guess = min(max(guess, fits + 1), too_long - 1)
        guess_length = length(guess)
        gained = estimates[guess - 1] - estimates[fits - 1]
        if gained > 0 and guess_length > fits_length:
            tokens_per_estimate = (guess_length - fits_length) / gained
        if guess_length <= context_tokens:
            fits, fits_length = guess, guess_length
        else:
            too_long = guess
    return build(fits)
