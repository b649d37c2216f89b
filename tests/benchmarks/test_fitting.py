import dataclasses
from itertools import accumulate, count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sah.benchmarks.fitting import TokenCounts, fit_units
from sah.errors import ConfigurationError


class Lengths:
    """A tokenizer with given prompt lengths: `lengths[n]` for n units."""

    max_tokens = None

    def __init__(self, lengths):
        self.lengths = lengths
        self.prompts_measured = 0

    def token_counts(self, texts):
        raise AssertionError

    def prompt_length(self, example):
        self.prompts_measured += 1
        return self.lengths[int(example.id)]


class Characters:
    """A tokenizer of single characters that records the texts it counts."""

    max_tokens = None

    def __init__(self):
        self.asked = []

    def token_counts(self, texts):
        self.asked += texts
        return [len(text) for text in texts]


@given(
    units=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30)), min_size=1, max_size=40),
    overhead=st.integers(0, 20),
    context_tokens=st.integers(1, 300),
    least=st.integers(1, 3),
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_finds_the_most_units_that_fit_even_with_wrong_estimates(
    example, units, overhead, context_tokens, least
):
    least = min(least, len(units))
    lengths = [overhead]
    for real, _ in units:
        lengths.append(lengths[-1] + real)
    template = dataclasses.replace(example(), max_new_tokens=5)

    def fit():
        return fit_units(
            lambda count: dataclasses.replace(template, id=str(count)),
            list(accumulate(estimate for _, estimate in units)),
            Lengths(lengths),
            context_tokens=context_tokens,
            least=least,
        )

    fitting = [n for n in range(least, len(lengths)) if lengths[n] + 5 <= context_tokens]
    if fitting:
        assert fit().id == str(max(fitting))
    else:
        with pytest.raises(ConfigurationError, match=f"take {lengths[least] + 5} tokens"):
            fit()


@pytest.mark.parametrize("wrong_by", [0.9, 1.0, 1.1])
def test_few_whole_prompts_are_tokenised(example, wrong_by):
    """Each of them takes most of a second at 128k tokens."""
    tokenizer = Lengths([40 + 25 * units for units in range(10_000)])
    template = dataclasses.replace(example(), max_new_tokens=5)
    fitted = fit_units(
        lambda units: dataclasses.replace(template, id=str(units)),
        [wrong_by * 25 * units for units in range(1, 10_000)],
        tokenizer,
        context_tokens=131_072,
        least=1,
    )
    assert int(fitted.id) == (131_072 - 45) // 25
    assert tokenizer.prompts_measured <= (3 if wrong_by == 1 else 8)


def test_useless_estimates_lead_to_bisection_instead_of_a_linear_search(example):
    tokenizer = Lengths([25 * units for units in range(10_000)])
    fit_units(
        lambda units: dataclasses.replace(example(), id=str(units)),
        [0.0] * 9_999,
        tokenizer,
        context_tokens=100_000,
        least=1,
    )
    assert tokenizer.prompts_measured < 40


def test_each_text_is_tokenised_once():
    tokenizer = Characters()
    counts = TokenCounts(tokenizer)
    assert counts.of(["a", "bb", "a"]) == [1, 2, 1]
    assert counts.of(["bb", "ccc"]) == [2, 3]
    assert tokenizer.asked == ["a", "bb", "ccc"]


def test_takes_only_slightly_more_units_than_fit():
    numbers = count()
    units, estimates = TokenCounts(Characters()).enough_units(
        (f"{number:010d}" for number in numbers), 10_000
    )
    assert len(units) == len(estimates)
    assert estimates[:3] == [10, 20, 30]
    assert 10_000 < estimates[-1] < 20_000


def test_takes_all_units_if_they_run_out():
    units, estimates = TokenCounts(Characters()).enough_units(iter(["ab", "c"]), 10_000)
    assert (units, estimates) == (["ab", "c"], [2, 3])
