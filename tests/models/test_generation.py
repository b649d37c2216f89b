"""The choice of the next token."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sah.errors import NonFiniteLogits
from sah.models.generation import Generation, next_tokens

CPU = torch.device("cpu")


def drawn(generation: Generation, logits: Tensor, count: int, example: str = "one") -> list[int]:
    sampler = generation.sampler(0, example, CPU)
    return [sampler.choose(logits) for _ in range(count)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1 or null, got 0"),
        ({"max_new_tokens": -3}, "got -3"),
        ({"max_new_tokens": 2.5}, "max_new_tokens must be .*, got 2.5"),
        ({"max_new_tokens": True}, "max_new_tokens must be .*, got True"),
        ({"temperature": -0.1}, r"temperature must be at least 0 \(0 is greedy\), got -0.1"),
        ({"temperature": 1e-7}, r"temperature must be 0 \(greedy\) or at least 1e-06, got 1e-07"),
        ({"temperature": "hot"}, "temperature must be a number, got 'hot'"),
        ({"temperature": None}, "temperature must be a number, got None"),
        ({"temperature": 1.0, "top_k": 0}, "top_k must be at least 1 or null, got 0"),
        ({"temperature": 1.0, "top_p": 0.0}, r"top_p must be in \(0, 1\] or null, got 0.0"),
        ({"temperature": 1.0, "top_p": 1.1}, "got 1.1"),
        ({"top_k": 5}, "have no effect at temperature 0"),
        ({"top_p": 0.5}, "have no effect at temperature 0"),
        ({"seed": 0.5}, "seed must be .*, got 0.5"),
    ],
)
def test_invalid_settings_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Generation(**arguments)


def test_max_new_tokens_lowers_an_example_s_limit_and_never_raises_it() -> None:
    capped = Generation(max_new_tokens=10)
    assert [capped.token_limit(limit) for limit in (3, 10, 50, 7)] == [3, 10, 10, 7]
    assert [Generation().token_limit(limit) for limit in (3, 50)] == [3, 50]
    assert Generation(max_new_tokens=1).token_limit(3) == 1


def test_greedy_takes_the_best_token() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0, 1.9]])
    assert drawn(Generation(), logits, 5) == [2] * 5
    assert drawn(Generation(), logits.bfloat16(), 1) == [2]


@pytest.mark.parametrize("temperature", [1e-6, 0.3, 1.0, 10.0])
def test_top_k_1_is_greedy_at_any_temperature(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        logits = torch.randn(1, 50, generator=generator)
        generation = Generation(temperature=temperature, top_k=1)
        assert drawn(generation, logits, 3) == [int(logits.argmax())] * 3


def test_tokens_are_drawn_from_the_softmax_at_the_temperature() -> None:
    logits, temperature, count = torch.tensor([[0.0, 1.0, 2.0, -1.0]]), 1.7, 8000
    tokens = torch.tensor(drawn(Generation(temperature=temperature), logits, count))
    weights = [math.exp(logit / temperature) for logit in logits[0].tolist()]
    for token, weight in enumerate(weights):
        probability = weight / sum(weights)
        standard_error = math.sqrt(probability * (1 - probability) / count)
        frequency = (tokens == token).double().mean().item()
        assert abs(frequency - probability) < 4 * standard_error


def test_top_k_keeps_only_the_k_best_tokens() -> None:
    logits = torch.tensor([[3.0, 2.9, 2.8, 2.7, 2.6]])
    assert set(drawn(Generation(temperature=1.0, top_k=2), logits, 200)) == {0, 1}
    assert set(drawn(Generation(temperature=1.0, top_k=99), logits, 400)) == {0, 1, 2, 3, 4}


def test_top_p_keeps_the_fewest_tokens_that_sum_to_p() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert set(drawn(Generation(temperature=1.0, top_p=0.7), logits, 300)) == {0, 1}
    assert set(drawn(Generation(temperature=1.0, top_p=0.9), logits, 500)) == {0, 1, 2}
    # Integers are accepted too.
    assert set(drawn(Generation(temperature=1, top_p=1), logits, 500)) == {0, 1, 2, 3}


def test_a_sample_depends_only_on_seed_and_example() -> None:
    logits = torch.zeros(1, 1000)
    generation = Generation(temperature=1.0)
    first = drawn(generation, logits, 5)
    torch.manual_seed(99)
    assert drawn(generation, logits, 5) == first
    assert drawn(generation, logits, 5, example="two") != first
    other_seed = generation.sampler(1, "one", CPU)
    assert [other_seed.choose(logits) for _ in range(5)] != first
    own_seed = Generation(temperature=1.0, seed=0).sampler(1, "one", CPU)
    assert [own_seed.choose(logits) for _ in range(5)] == first


def test_sampling_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    drawn(Generation(temperature=1.0), torch.zeros(1, 10), 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(
    "logits",
    [[math.nan, 1.0, 2.0], [1.0, math.nan, math.inf], [math.inf, 0.0], [-math.inf, -math.inf]],
    ids=["nan", "nan_and_inf", "inf", "nothing_possible"],
)
def test_logits_that_are_not_finite_are_an_error(logits: list[float], temperature: float) -> None:
    sampler = Generation(temperature=temperature).sampler(0, "one", CPU)
    with pytest.raises(NonFiniteLogits, match="not finite"):
        sampler.choose(torch.tensor([logits]))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_token_with_a_logit_of_minus_infinity_is_never_chosen(temperature: float) -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf]])
    assert set(drawn(Generation(temperature=temperature), logits, 30)) == {1}


@pytest.mark.parametrize(
    "generation",
    [Generation(), Generation(temperature=1.5), Generation(temperature=0.7, top_k=5, top_p=0.9)],
    ids=["greedy", "sampled", "top-k and top-p"],
)
def test_the_tokens_of_several_answers_are_those_of_each_alone(generation: Generation) -> None:
    logits = 3 * torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    device = torch.device("cpu")
    alone, together = (
        [generation.sampler(0, f"row {row}", device) for row in range(4)] for _ in range(2)
    )
    for _ in range(20):
        chosen = [sampler.choose(logits[row : row + 1]) for row, sampler in enumerate(alone)]
        assert next_tokens(together, logits) == chosen


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_of_several_answers_only_those_with_broken_logits_get_no_token(
    broken: float, temperature: float
) -> None:
    generation = Generation(temperature=temperature)
    logits = torch.zeros(3, 8)
    logits[1, 2] = broken
    logits[:, 5] += 100
    samplers = [generation.sampler(0, str(row), torch.device("cpu")) for row in range(3)]
    assert next_tokens(samplers, logits) == [5, None, 5]
