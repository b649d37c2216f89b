"""Metrics of attention: functions of (inputs, mask, output), and the observer that logs them."""

# B batch, H query heads, G key-value heads, Q queries, K keys, V value dimension

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sah.attention import AttentionInputs, AttentionMask, dense_attention
from sah.attention.eviction.whole import whole
from sah.metric_logging.logger import HeadValues, MicroMetricLogger
from sah.results.schema import DENSITY, OUTPUT_ERROR, RECALL, ROWS_READ

PER_HEAD: Mapping[str, str] = {
    DENSITY: "query head",
    ROWS_READ: "key-value head",
    OUTPUT_ERROR: "query head",
    RECALL: "query head",
}
"""The metrics of attention, and which heads each of them has a value of."""

for _name in PER_HEAD:
    MicroMetricLogger.register_metric(_name, float)


# At most this many consecutive queries of a call are drawn together. More would cost fewer
# operations, but let single layers weigh too much in a mean: of an example's output error on
# SmolLM2, the standard deviation is .0024 with 1, .0027 with 4 and .0098 with 16.
_UNIT_QUERIES = 4


def rows_read(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B G Q"]:
    """Return the share of visible key-value rows that any query head of each group selects.

    Equal to the density if all heads of a group select the same keys, and at most the group size
    times it. NaN for a query that sees no key (padding), as in the other metrics.
    """
    return mask.rows_read(inputs.key.shape[1]) / inputs.visible_count[:, :1, :, 0]


def dense_output(inputs: AttentionInputs) -> Float[Tensor, "B H Q V"]:
    """Return the output of dense attention for these inputs."""
    return dense_attention(inputs, AttentionMask.empty(inputs).add(inputs.visible))


def output_error(
    inputs: AttentionInputs,
    mask: AttentionMask,
    output: Float[Tensor, "B H Q V"],
    dense: Float[Tensor, "B H Q V"] | None = None,
) -> Float[Tensor, "B H Q"]:
    """Return ‖output − dense‖ / ‖dense‖ of each query and head.

    `dense` is the output of dense attention for the same inputs; it is computed unless given.
    """
    dense = (dense_output(inputs) if dense is None else dense).float()
    # Where dense attention gives zeros, the same output has no error.
    length = dense.norm(dim=-1).clamp(min=torch.finfo(torch.float32).tiny)
    difference = (output.float() - dense).norm(dim=-1) / length  # B H Q
    return _without_padding(difference, mask)


def recall(inputs: AttentionInputs, mask: AttentionMask) -> Float[Tensor, "B H Q"]:
    """Return the share of the full softmax mass on the keys that each query and head selects.

    The weights of sampled keys are ignored, and so is a model's own attention sink.
    """
    scores = inputs.scores.masked_fill(~inputs.visible, -torch.inf)  # B H Q K
    share = torch.softmax(scores, dim=-1).where(mask.selected, 0.0).sum(-1)  # B H Q
    return _without_padding(share, mask)


def _without_padding(values: Float[Tensor, "B H Q"], mask: AttentionMask) -> Float[Tensor, "B H Q"]:
    return values.where(mask.visible.any(-1), torch.nan)


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


def _units(queries: int) -> int:
    return -(-queries // _UNIT_QUERIES)


@dataclass(frozen=True, kw_only=True)
class SampledMeans:
    """Means over the queries of an example that were drawn, in its sparse layers."""

    output_error: float | None
    recall: float | None
    queries: int | None
    """Number of queries drawn, each counted once in every layer; None if neither is enabled."""


class AttentionMetrics:
    """Observes an attention session, and measures the drawn queries of its sparse layers."""

    def __init__(self, micro_metric_logger: MicroMetricLogger) -> None:
        self.logger = micro_metric_logger
        self.dense_outputs: DenseOutputs | None = None
        """Shared with the other arms, for one context at a time; None if there are no others."""
        self._first_layer: int | None = None
        self._drawn: Sequence[int] | None = None
        """Drawn for the next call."""

    def skips(self, layer: int, queries: int) -> bool:
        """Draw for the next call, which may be left out if it is skipped.

        Args:
            layer: number of its layer.
            queries: number of its queries.

        Returns:
            Whether none of its queries is measured.
        """
        if self._first_layer is None:
            self._first_layer = layer
        drawn = self.logger.draw(_units(queries))
        self._drawn = drawn or None
        return not drawn

    def __call__(self, inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        """Draw some of a call's queries, and measure the enabled metrics on them."""
        if self._first_layer is None:
            self._first_layer = inputs.layer_idx
        queries = inputs.query.shape[2]
        units = _units(queries)
        drawn, self._drawn = self._drawn, None
        if drawn is None:
            drawn = self.logger.draw(units)
        if len(drawn) == units:
            self._measure(inputs, mask, output)
            return
        for unit in drawn:
            start, end = unit * queries // units, (unit + 1) * queries // units
            self._measure(
                inputs.at_queries(start, end), mask.at_queries(start, end), output[:, :, start:end]
            )

    def _measure(self, inputs: AttentionInputs, mask: AttentionMask, output: Tensor) -> None:
        """Measure all on the same queries, since they share the scores of dense attention."""
        inputs, mask = whole(inputs, mask)
        logger = self.logger
        metadata = {
            "layer_idx": inputs.layer_idx,
            "step": inputs.first_position,
            "queries": inputs.query.shape[2],
        }
        logger.log_drawn(DENSITY, lambda: self._value(mask.density()), metadata)
        logger.log_drawn(ROWS_READ, lambda: self._value(rows_read(inputs, mask)), metadata)
        values = logger.example.values
        if logger.is_enabled(OUTPUT_ERROR):
            error = output_error(inputs, mask, output, self._shared_dense(inputs))
            mean_error = error.mean(1)
            values.setdefault(OUTPUT_ERROR, []).append(mean_error)
            logger.log_drawn(OUTPUT_ERROR, lambda: self._value(error, mean_error), metadata)
        if logger.is_enabled(RECALL):
            share = recall(inputs, mask)
            mean_share = share.mean(1)
            values.setdefault(RECALL, []).append(mean_share)
            logger.log_drawn(RECALL, lambda: self._value(share, mean_share), metadata)

    def _value(
        self, by_head: Float[Tensor, "B heads Q"], over_heads: Float[Tensor, "B Q"] | None = None
    ) -> Tensor | HeadValues:
        """Return the mean over heads and queries, with the mean of each head if it is recorded.

        `over_heads` is the mean over the heads alone; it is computed unless given.
        """
        mean = (by_head.mean(1) if over_heads is None else over_heads).nanmean()
        if not self.logger.per_head:
            return mean
        return HeadValues(mean=mean, heads=by_head.nanmean((0, 2)))

    def means(self) -> SampledMeans:
        """Return the means over the current example's drawn queries."""
        enabled = [name for name in (OUTPUT_ERROR, RECALL) if self.logger.is_enabled(name)]
        measured = {name: _mean(self.logger.example.values.get(name, [])) for name in enabled}
        return SampledMeans(
            output_error=measured.get(OUTPUT_ERROR, (None, 0))[0],
            recall=measured.get(RECALL, (None, 0))[0],
            queries=measured[enabled[0]][1] if enabled else None,
        )

    def _shared_dense(self, inputs: AttentionInputs) -> Tensor | None:
        if self.dense_outputs is None or inputs.layer_idx != self._first_layer:
            return None
        return self.dense_outputs.output(inputs)


def _mean(values: list[Tensor]) -> tuple[float | None, int]:
    """Return the mean over queries that are not NaN, and their number; None for infinity."""
    if not values:
        return None, 0
    # Layers may be on several devices.
    by_device: dict[torch.device, list[Tensor]] = {}
    for value in values:
        by_device.setdefault(value.device, []).append(value.flatten())
    by_query = torch.cat([torch.cat(parts).cpu() for parts in by_device.values()]).double()
    known = by_query[~by_query.isnan()]
    if len(known) == 0:
        return None, 0
    mean = float(known.mean())
    return mean if math.isfinite(mean) else None, len(known)
