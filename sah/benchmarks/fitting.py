"""The longest prompt that fits into a token budget."""

from collections.abc import Callable, Sequence
from itertools import accumulate

from sah.errors import ConfigurationError
from sah.types import Example, PromptTokenizer


def fit_units(
    build: Callable[[int], Example],
    unit_tokens: Sequence[int],
    tokenizer: PromptTokenizer,
    *,
    context_tokens: int,
    least: int,
) -> Example:
    """Build the example with the most units whose prompt and answer fit.

    Args:
        build: makes the example with a number of units of text.
        unit_tokens: about how many tokens each unit takes; only speeds up the search.
        tokenizer: measures the prompt as the model will see it.
        context_tokens: limit of prompt plus answer.
        least: the fewest units that make sense.

    Raises:
        ConfigurationError: if even `least` units are too long.
    """

    def length(units: int) -> int:
        example = build(units)
        return tokenizer.prompt_length(example) + example.max_new_tokens

    shortest = length(least)
    if shortest > context_tokens:
        raise ConfigurationError(
            f"benchmark.context_tokens={context_tokens} is too small: the shortest "
            f"{build(least).task} prompt and its answer take {shortest} tokens"
        )
    ends = list(accumulate(unit_tokens))
    most = len(ends)
    fits, too_long = least, most + 1
    measured = {least: shortest}
    while too_long - fits > 1:
        # Where the budget would end if the estimate were right from here on.
        spare = context_tokens - measured[fits]
        target = ends[fits - 1] + spare
        guess = sum(end <= target for end in ends)
        guess = min(max(guess, fits + 1), too_long - 1)
        measured[guess] = length(guess)
        if measured[guess] <= context_tokens:
            fits = guess
        else:
            too_long = guess
    return build(fits)
