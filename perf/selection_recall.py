"""Recall and output error of the methods and their settings on one prompt.

    python perf/selection_recall.py

Measured at the last query of a RULER prompt on SmolLM2, in all layers, at 10 % of the keys.
Sink and window are selected only where the row says so.
"""

import dataclasses

import torch

from sah.attention import (
    AttentionInputs,
    AttentionMask,
    Masker,
    SparseAttention,
    Visibility,
    dense_attention,
)
from sah.attention.session import AttentionSession
from sah.benchmarks.ruler import Ruler
from sah.content.calibration_files import calibration_reference
from sah.maskers.causal import Causal
from sah.maskers.double_sparsity import DoubleSparsity
from sah.maskers.hash_attention import HashAttention
from sah.maskers.local import Local
from sah.maskers.loki import Loki
from sah.maskers.oracle_top_k import OracleTopK
from sah.maskers.pq_cache import PQCache
from sah.maskers.quest import Quest
from sah.maskers.sink import Sink
from sah.maskers.socket import SOCKET
from sah.metric_logging.metrics import output_error, recall
from sah.models.smollm2 import SmolLM2

SHARE = 0.1


def main() -> None:
    layers = last_queries()
    for name, masker in settings().items():
        recalls, errors = [], []
        for inputs in layers:
            fresh = dataclasses.replace(inputs, indexes={})
            mask = masker(fresh, AttentionMask.empty(fresh))
            recalls.append(recall(fresh, mask))
            errors.append(output_error(fresh, mask, dense_attention(fresh, mask)))
        print(
            f"{name:32s} recall {torch.stack(recalls).mean():.2f} "
            f"error {torch.stack(errors).mean():.2f}"
        )


def settings() -> dict[str, Masker]:
    channels = calibration_reference("double_sparsity", "smollm2")
    weights = calibration_reference("hash_attention", "smollm2")
    found: dict[str, Masker] = {"oracle": OracleTopK(fraction=SHARE)}
    for size in (16, 8, 4):
        found[f"quest, pages of {size}"] = Quest(fraction=SHARE, page_size=size)
    for factor in (16, 8, 4):
        found[f"double_sparsity, {64 // factor} channels"] = DoubleSparsity(
            fraction=SHARE, channels=channels, group_factor=factor
        )
    found["double_sparsity, not quantised"] = DoubleSparsity(
        fraction=SHARE, channels=channels, label_bits=16
    )
    found["socket"] = SOCKET(fraction=SHARE)
    found["socket, without value norms"] = SOCKET(fraction=SHARE, weigh_by_value=False)
    for parts in (2, 4, 8):
        found[f"pq_cache, {parts} sub-vectors"] = PQCache(fraction=SHARE, subvectors=parts)
    for share in (0.0625, 0.125, 0.25, 0.5):
        loki = Loki(fraction=SHARE, components_fraction=share)
        found[f"loki, {64 * share:.0f} components"] = loki
        found[f"loki, {64 * share:.0f}, sink and window"] = after_sink_and_window(loki)
    found["hash_attention"] = HashAttention(fraction=SHARE, weights=weights)
    return found


def after_sink_and_window(masker: Masker) -> Masker:
    def fold(inputs: AttentionInputs, mask: AttentionMask) -> AttentionMask:
        return masker(inputs, Local(tokens=8)(inputs, Sink(tokens=4)(inputs, mask)))

    return fold


@torch.inference_mode()
def last_queries() -> list[AttentionInputs]:
    """Return the inputs of each layer at the last query of the question."""
    model = SmolLM2().load()
    (example,) = Ruler(subset="niah_multikey_1", samples=1).examples(model.prompts, 0)
    prompt = model.prompts.encode(example)
    context = model.prefill(prompt.context_ids, reserve_tokens=200)
    seen: list[AttentionInputs] = []

    def keep(inputs: AttentionInputs, mask: AttentionMask, output: torch.Tensor) -> None:
        seen.append(
            dataclasses.replace(
                inputs,
                query=inputs.query[:, :, -1:].clone(),
                visibility=Visibility(inputs.visible[:, :, -1:].clone()),
                key=inputs.key.clone(),
                value=inputs.value.clone(),
                first_position=inputs.key.shape[2] - 1,
            )
        )

    attention = SparseAttention(name="all", maskers={"all": Causal()})
    session = AttentionSession(attention, seed=0, observers=(keep,))
    session.begin_context(context.length)
    session.begin_example(example.id)
    model.read_question(context, prompt.question_ids, session=session)
    return seen


if __name__ == "__main__":
    with torch.inference_mode():
        main()
