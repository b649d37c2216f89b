"""Teacher forcing: every arm follows the dense answer and is compared with it token by token.

In free decoding one different token changes everything after it. Under the same tokens only the
approximation differs, so a few examples are enough to tell two methods apart.
"""

# B batch, H query heads, Q queries, V value dimension

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask
from sah.attention.eviction.whole import whole
from sah.metric_logging.metrics import output_error
from sah.models.generation import TokenChooser, best_token


class DenseAnswer:
    """Records the dense answer while it is decoded: its tokens and their logits."""

    def __init__(self, sampler: TokenChooser) -> None:
        self.sampler = sampler
        self.tokens: list[int] = []
        """The chosen tokens, end of sequence included; a forced end of a thought is left out."""
        self.logits: list[Tensor] = []
        """[1, vocabulary] for each token; in main memory, since vocabularies are large."""

    def choose(self, logits: Float[Tensor, "1 vocabulary"]) -> int:
        """Choose a token with the sampler, and record it."""
        token = self.sampler.choose(logits)
        self.tokens.append(token)
        self.logits.append(logits.cpu())
        return token


class TeacherForcing:
    """Chooses the tokens of the dense answer and compares the distributions."""

    def __init__(self, dense_answer: DenseAnswer) -> None:
        self.dense_answer = dense_answer
        self._kl: list[Tensor] = []
        self._top_agrees: list[bool] = []

    def choose(self, logits: Float[Tensor, "1 vocabulary"]) -> int:
        """Return the next token of the dense answer, and compare its logits with these.

        Raises:
            NonFiniteLogits: if the arm's logits are not finite.
        """
        step = len(self._kl)
        dense = self.dense_answer.logits[step].to(logits.device)
        self._top_agrees.append(best_token(logits) == best_token(dense))
        self._kl.append(kl_divergence(dense, logits))
        return self.dense_answer.tokens[step]

    def measured(self) -> dict[str, Any]:
        """Return, token by token, `kl` to dense in nats and whether the top token agrees."""
        return {"kl": torch.stack(self._kl).tolist(), "top_agrees": self._top_agrees}


class LayerErrors:
    """Observes a session: each layer's mean output error over the tokens of the answer.

    Only the last query of a forward pass counts, the one whose token is compared.
    """

    def __init__(self) -> None:
        self._errors: dict[int, list[Tensor]] = {}

    def begin_example(self) -> None:
        """Forget the errors of the last answer."""
        self._errors = {}

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        """Measure one call of a layer; output is [B, H, Q, V]."""
        queries = inputs.query.shape[2]
        is_cut = inputs.first_position + queries < inputs.key.shape[2]
        if is_cut or inputs.later_queries:
            # A chunk that does not hold the last query.
            return
        if queries > 1:
            inputs = inputs.at_queries(queries - 1, queries)
        inputs, mask = whole(inputs, AttentionMask.empty(inputs))
        error = output_error(inputs, mask, output[:, :, -1:]).mean()
        self._errors.setdefault(inputs.layer_idx, []).append(error)

    def measured(self) -> dict[str, Any]:
        """Return `output_error` by layer, without the layers that stayed dense."""
        means = {
            str(layer): float(torch.stack(errors).mean()) for layer, errors in self._errors.items()
        }
        return {"output_error": means}


def kl_divergence(
    dense: Float[Tensor, "1 vocabulary"], other: Float[Tensor, "1 vocabulary"]
) -> Float[Tensor, ""]:
    """Compute KL(dense ‖ other) of the distributions at temperature 1, in nats."""
    log_dense = torch.log_softmax(dense.float(), dim=-1)
    log_other = torch.log_softmax(other.float(), dim=-1)
    share = log_dense.exp()
    # A token with dense probability 0 adds nothing: 0 · (-inf + inf) would be NaN.
    terms = torch.where(share > 0, share * (log_dense - log_other), 0.0)
    # Only rounding makes it negative.
    return terms.sum().clamp(min=0)
