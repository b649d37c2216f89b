"""Metrics of attention: functions of (inputs, mask, output), and the observer that logs them."""

# B batch, H query heads, Q queries, K keys, V value dimension

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, dense_attention
from sah.metric_logging.logger import MicroMetricLogger
from sah.results.schema import DENSITY, OUTPUT_ERROR, RECALL

for _name in (DENSITY, OUTPUT_ERROR, RECALL):
    MicroMetricLogger.register_metric(_name, float)


def density(mask: AttentionMask) -> Float[Tensor, ""]:
    """Return the mean share of selected among visible keys; queries without keys do not count."""
    return mask.density().nanmean()


def dense_output(inputs: AttentionInputs) -> Float[Tensor, "B H Q V"]:
    """Return the output of dense attention for these inputs."""
    return dense_attention(inputs, AttentionMask.empty(inputs).add(inputs.visible))


def output_error(
    inputs: AttentionInputs,
    mask: AttentionMask,
    output: Float[Tensor, "B H Q V"],
    dense: Float[Tensor, "B H Q V"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over queries and heads of ‖output − dense‖ / ‖dense‖.

    `dense` is the output of dense attention for the same inputs; it is computed unless given.
    """
    dense = (dense_output(inputs) if dense is None else dense).float()
    difference = (output.float() - dense).norm(dim=-1) / dense.norm(dim=-1)  # B H Q
    return _mean_over_real_queries(difference, mask)


def recall(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, ""]:
    """Return the mean share of the full softmax mass that falls on selected keys.

    The weights of sampled keys are ignored, and so is a model's own attention sink.
    """
    scores = inputs.scores.masked_fill(~inputs.visible, -torch.inf)  # B H Q K
    share = torch.softmax(scores, dim=-1).where(mask.selected, 0.0).sum(-1)  # B H Q
    return _mean_over_real_queries(share, mask)


def _mean_over_real_queries(
    values: Float[Tensor, "B H Q"], mask: AttentionMask
) -> Float[Tensor, ""]:
    real = mask.visible.any(-1).expand_as(values)  # padding queries see no key
    return values.where(real, torch.nan).nanmean()


class DenseOutputs:
    """Dense outputs for one context, computed once for all arms with equal inputs.

    Inputs are equal in the first sparse layer as long as the tokens are, because the layers before
    it are dense in every arm. In later layers the queries differ between arms.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], tuple[list[Tensor], Tensor]] = {}

    def output(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q V"]:
        """Return `dense_output` of these inputs, reused if identical inputs were seen before."""
        # The seed distinguishes examples and layers, and is equal in arms of equal seed.
        key = (inputs.seed, inputs.first_position, inputs.query.shape[2])
        after = inputs.context_length
        # Keys of the context need no comparison, as all arms share its cache.
        parts = [inputs.query, inputs.key[:, :, after:], inputs.value[:, :, after:]]
        seen, output = self._known.get(key, (None, None))
        if seen is not None and output is not None:
            if all(torch.equal(one, other) for one, other in zip(seen, parts, strict=True)):
                return output
        output = dense_output(inputs)
        # Copied, as the next answer overwrites keys and values in the cache.
        self._known[key] = ([part.clone() for part in parts], output)
        return output


class AttentionMetrics:
    """Observes an attention session and logs its metrics layer by layer."""

    def __init__(self, micro_metric_logger: MicroMetricLogger) -> None:
        self.logger = micro_metric_logger
        self.dense_outputs: DenseOutputs | None = None
        """Shared with the other arms, for one context at a time; None if there are no others."""
        self._first_layer: int | None = None

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        """Log the enabled metrics; one that is disabled or not drawn is not computed."""
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
