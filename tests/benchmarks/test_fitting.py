import dataclasses

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sah.benchmarks.fitting import fit_units
from sah.errors import ConfigurationError


class Lengths:
    """A tokenizer whose prompt lengths are given: `lengths[n]` for n units."""

    max_tokens = None

    def __init__(self, lengths):
        self.lengths = lengths

    def token_counts(self, texts):
        raise AssertionError

    def prompt_length(self, example):
        return self.lengths[int(example.id)]


@given(
    units=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 30)), min_size=1, max_size=40),
    overhead=st.integers(0, 20),
    context_tokens=st.integers(1, 300),
    least=st.integers(1, 3),
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_finds_the_most_units_that_fit_however_wrong_the_estimate_is(
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
            [estimate for _, estimate in units],
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
