"""The metrics of attention: functions of (inputs, mask, output), and when to record them."""

# B batch, H query heads, Q queries, V value dimension

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, dense_attention
from sah.metric_logging.logger import MicroMetricLogger
from sah.results.schema import DENSITY, OUTPUT_ERROR, RECALL

for _name in (DENSITY, OUTPUT_ERROR, RECALL):
    MicroMetricLogger.register_metric(_name, float)


def density(mask: AttentionMask) -> Float[Tensor, ""]:
    """Mean of selected over visible keys; queries that see nothing do not count."""
    return mask.density().nanmean()


def dense_output(inputs: AttentionInputs) -> Float[Tensor, "B H Q V"]:
    """What dense attention makes of these inputs."""
    return dense_attention(inputs, AttentionMask.empty(inputs).add(inputs.visible))


def output_error(
    inputs: AttentionInputs,
    mask: AttentionMask,
    output: Float[Tensor, "B H Q V"],
    dense: Float[Tensor, "B H Q V"] | None = None,
) -> Float[Tensor, ""]:
    """Mean over queries and heads of ‖output − dense‖ / ‖dense‖, on the same inputs.

    `dense` is computed unless it is given.
    """
    dense = (dense_output(inputs) if dense is None else dense).float()
    difference = (output.float() - dense).norm(dim=-1) / dense.norm(dim=-1)
    return _mean_over_real_queries(difference, mask)


def recall(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, ""]:
    """Mean share of the full softmax mass that lies on the selected keys.

    Weights of sampled keys do not count, nor does a model's own attention sink.
    """
    scores = inputs.scores.masked_fill(~inputs.visible, -torch.inf)
    share = torch.softmax(scores, dim=-1).where(mask.selected, 0.0).sum(-1)
    return _mean_over_real_queries(share, mask)


def _mean_over_real_queries(
    values: Float[Tensor, "B H Q"], mask: AttentionMask
) -> Float[Tensor, ""]:
    real = mask.visible.any(-1).expand_as(values)
    return values.where(real, torch.nan).nanmean()


class DenseOutputs:
    """Dense outputs of one context, computed once for all arms whose inputs are equal.

    That is so in the first layer that is sparse, as long as the tokens are the same: what
    comes before it is dense in every arm. Further up, each arm has queries of its own.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], tuple[list[Tensor], Tensor]] = {}

    def output(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q V"]:
        """`dense_output` of these inputs, remembered if the very same were seen before."""
        # The seed tells examples and layers apart, for arms that share their seed.
        place = (inputs.seed, inputs.first_position, inputs.query.shape[2])
        after = inputs.context_length
        # The context's keys are the same for all arms: one cache.
        parts = [inputs.query, inputs.key[:, :, after:], inputs.value[:, :, after:]]
        seen, output = self._known.get(place, (None, None))
        if seen is not None and output is not None:
            if all(torch.equal(one, other) for one, other in zip(seen, parts, strict=True)):
                return output
        output = dense_output(inputs)
        # Copied: the cache writes the next answer over keys and values.
        self._known[place] = ([part.clone() for part in parts], output)
        return output


class AttentionMetrics:
    """Observes an attention session and logs its metrics, layer by layer."""

    def __init__(self, micro_metric_logger: MicroMetricLogger) -> None:
        self.logger = micro_metric_logger
        self.dense_outputs: DenseOutputs | None = None
        """Shared with other arms, one context at a time; None if there are none."""
        self._first_layer: int | None = None

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        """Log what is enabled; what is not enabled, or not drawn, is not computed."""
        if self._first_layer is None:
            self._first_layer = inputs.layer_idx
        metadata = {"layer_idx": inputs.layer_idx, "step": inputs.first_position}
        self.logger.log(DENSITY, lambda: density(mask), metadata)
        self.logger.log(
            OUTPUT_ERROR,
            lambda: output_error(inputs, mask, output, self._shared_dense(inputs)),
            metadata,
        )
        self.logger.log(RECALL, lambda: recall(inputs, mask), metadata)

    def _shared_dense(self, inputs: AttentionInputs) -> Tensor | None:
        if self.dense_outputs is None or inputs.layer_idx != self._first_layer:
            return None
        return self.dense_outputs.output(inputs)
