"""The metrics of attention: functions of (inputs, mask, output), and when to record them."""

# B batch, H query heads, Q queries, V value dimension

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, dense_attention
from sah.metric_logging.logger import MicroMetricLogger

DENSITY = "research_attention_density"
OUTPUT_ERROR = "research_attention_output_error"
RECALL = "research_attention_recall"

for _name in (DENSITY, OUTPUT_ERROR, RECALL):
    MicroMetricLogger.register_metric(_name, float)


def density(mask: AttentionMask) -> Float[Tensor, ""]:
    """Mean of selected over visible keys; queries that see nothing do not count."""
    return mask.density().nanmean()


def output_error(
    inputs: AttentionInputs, mask: AttentionMask, output: Float[Tensor, "B H Q V"]
) -> Float[Tensor, ""]:
    """Mean over queries and heads of ‖output − dense‖ / ‖dense‖, on the same inputs."""
    everything = AttentionMask.empty(inputs).add(inputs.visible)
    dense = dense_attention(inputs, everything).float()
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


class AttentionMetrics:
    """Observes an attention session and logs its metrics, layer by layer."""

    def __init__(self, micro_metric_logger: MicroMetricLogger) -> None:
        self.logger = micro_metric_logger

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        """Log what is enabled; what is not enabled, or not drawn, is not computed."""
        metadata = {"layer_idx": inputs.layer_idx, "step": inputs.first_position}
        self.logger.log(DENSITY, lambda: density(mask), metadata)
        self.logger.log(OUTPUT_ERROR, lambda: output_error(inputs, mask, output), metadata)
        self.logger.log(RECALL, lambda: recall(inputs, mask), metadata)
