"""Generation settings, and the choice of the next token."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from sah.errors import NonFiniteLogits
from sah.seeding import derive
from sah.validation import check_types

_LEAST_TEMPERATURE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Greedy at temperature 0; otherwise top_k, then top_p, as in transformers."""

    max_new_tokens: int | None = None
    """Upper bound on every example's own limit; null applies only the example's."""
    thinking_tokens: int | None = None
    """Longest thought, after which its end mark is forced and the answer has its whole limit.

    0 ends a thought as soon as it begins. None leaves thoughts alone: thought and answer share the
    limit of the answer.
    """
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    """Seed of the sampling only; null uses the experiment's seed."""
    batch_rows: int = 32
    """Decode up to this many answers in one batch: to questions of one context and of several.

    Matrix products of another shape round differently, so that a token may occasionally differ.
    Both limits are therefore part of the fingerprint. A model whose cache or positions do not allow
    batches decodes its answers one by one.
    """
    batch_tokens: int = 65536
    """Most tokens in the rows of a batch: contexts, questions and answers, every row counted as
    long as the longest. A longer prompt is answered alone.

    Two things of up to this size are in memory together: the caches of the contexts, which the
    arms of a job share, and a copy of them in which the rows of the arm at work lie side by side;
    of evicted contexts, only what is kept is copied. A context that is longer than its questions
    and answers counts once: if a copy for each row would be larger, its rows take turns in the
    cache.
    """

    def __post_init__(self) -> None:
        check_types(self)
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(
                f"generation.max_new_tokens must be at least 1 or null, got {self.max_new_tokens}"
            )
        if self.thinking_tokens is not None and self.thinking_tokens < 0:
            raise ValueError(
                "generation.thinking_tokens must be at least 0 (no thought), or null to leave "
                f"thoughts alone, got {self.thinking_tokens}"
            )
        if self.batch_rows < 1:
            raise ValueError(
                "generation.batch_rows must be at least 1 (one answer at a time), got "
                f"{self.batch_rows}"
            )
        if self.batch_tokens < 1:
            raise ValueError(
                "generation.batch_tokens must be at least 1 (one context at a time), got "
                f"{self.batch_tokens}"
            )
        if self.temperature < 0:
            raise ValueError(
                f"generation.temperature must be at least 0 (0 is greedy), got {self.temperature}"
            )
        if 0 < self.temperature < _LEAST_TEMPERATURE:
            raise ValueError(
                f"generation.temperature must be 0 (greedy) or at least {_LEAST_TEMPERATURE}, got "
                f"{self.temperature}: dividing logits by less can overflow float32"
            )
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"generation.top_k must be at least 1 or null, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"generation.top_p must be in (0, 1] or null, got {self.top_p}")
        if self.temperature == 0 and (self.top_k is not None or self.top_p is not None):
            raise ValueError(
                "generation.top_k and top_p have no effect at temperature 0 (greedy); set "
                "generation.temperature above 0, or leave them null"
            )

    @property
    def greedy_setting(self) -> str | None:
        """The setting that makes every answer the most likely one; None if answers are sampled."""
        if self.temperature == 0:
            return "temperature=0"
        return "top_k=1" if self.top_k == 1 else None

    def rows_together(self, tokens: int) -> int:
        """Return how many rows of this many tokens each a batch may have."""
        return max(1, min(self.batch_rows, self.batch_tokens // max(1, tokens)))

    def token_limit(self, example_limit: int) -> int:
        """Return an example's limit, capped at `max_new_tokens`."""
        if self.max_new_tokens is None:
            return example_limit
        return min(example_limit, self.max_new_tokens)

    def sampler(self, experiment_seed: int, example_id: str, device: torch.device) -> "Sampler":
        """Return the sampler of one example; it does not depend on the examples before."""
        seed = experiment_seed if self.seed is None else self.seed
        generator = torch.Generator(device).manual_seed(derive(seed, "sampling", example_id))
        return Sampler(self, generator)


class TokenChooser(Protocol):
    """Decides which token comes next in an answer."""

    def choose(self, logits: Float[Tensor, "1 vocabulary"]) -> int:
        """Choose the next token.

        Raises:
            NonFiniteLogits: if the best logit is NaN or infinite.
        """


class Sampler:
    """Chooses the tokens of one answer, greedily or at random."""

    def __init__(self, generation: Generation, generator: torch.Generator) -> None:
        from transformers import (
            LogitsProcessorList,
            TemperatureLogitsWarper,
            TopKLogitsWarper,
            TopPLogitsWarper,
        )

        self.greedy = generation.temperature == 0
        self.generator = generator
        self.warpers = LogitsProcessorList()
        if not self.greedy:
            self.warpers.append(TemperatureLogitsWarper(float(generation.temperature)))
            if generation.top_k is not None:
                self.warpers.append(TopKLogitsWarper(generation.top_k))
            if generation.top_p is not None:
                self.warpers.append(TopPLogitsWarper(float(generation.top_p)))

    def choose(self, logits: Float[Tensor, "1 vocabulary"]) -> int:
        """Choose the next token.

        Raises:
            NonFiniteLogits: if the best logit is NaN or infinite.
        """
        (token,) = next_tokens([self], logits)
        # Without a token, the logits are not finite, which raises.
        return best_token(logits) if token is None else token

    def probability(self, logits: Float[Tensor, "B vocabulary"]) -> Float[Tensor, "B vocabulary"]:
        """Return the probabilities by which tokens are drawn."""
        # These warpers look only at the scores, so that the input ids may be empty.
        ids = torch.empty(logits.shape[0], 0, dtype=torch.long)
        return torch.softmax(self.warpers(ids, logits.float()), dim=-1)  # type: ignore[arg-type]


@contextmanager
def naming_example(example_id: str) -> Iterator[None]:
    """Add the example's id to an error about its logits.

    Raises:
        NonFiniteLogits: if the with block raises it; the message names the example.
    """
    try:
        yield
    except NonFiniteLogits as error:
        raise NonFiniteLogits(
            f"example {example_id!r}: {error}; its answer is not scored. Try another model.dtype, "
            "or leave the example out"
        ) from error


def next_tokens(
    samplers: Sequence[Sampler], logits: Float[Tensor, "B vocabulary"]
) -> list[int | None]:
    """Choose the next token of several answers, as each sampler would by itself.

    The host waits for the device once.

    Args:
        samplers: one for each row, all of the same settings.
        logits: of each row.

    Returns:
        None where the best logit is NaN or infinite.
    """
    best, token = logits.float().max(dim=-1)
    finite = torch.isfinite(best)
    if not samplers[0].greedy:
        probability = samplers[0].probability(logits.where(finite.unsqueeze(-1), 0.0))
        drawn = [
            torch.multinomial(probability[row : row + 1], 1, generator=sampler.generator)
            for row, sampler in enumerate(samplers)
        ]
        token = torch.cat(drawn).squeeze(-1)
    found = torch.where(finite, token, -1).tolist()
    return [None if number < 0 else number for number in found]


def best_token(logits: Float[Tensor, "1 vocabulary"]) -> int:
    """Return the token with the highest logit.

    Raises:
        NonFiniteLogits: if that logit is NaN or infinite.
    """
    best, token = logits.float().max(dim=-1)
    if not torch.isfinite(best).item():
        raise NonFiniteLogits(f"the model's logits are not finite (best: {best.item()})")
    return int(token.item())
