"""Gates between full and streaming attention, against the model's own attention and the evictor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_shape import SMALL
from torch.testing import assert_close
from transformers import Gemma2Config

from sah.attention import SparseAttention
from sah.attention.session import AttentionSession
from sah.calibration.gated_attention import (
    ReadPassage,
    frozen,
    read_densely,
    read_through_gates,
    require_gates,
)
from sah.calibration.passkeys import PasskeyPassage
from sah.errors import ConfigurationError
from sah.evictors.streaming.duo_attention import DuoAttention
from sah.models.eviction import evicted

PASSAGE = PasskeyPassage(
    context_ids=[1 + (7 * n) % 389 for n in range(60)],
    question_ids=[5 + (11 * n) % 380 for n in range(14)],
    passkeys=[range(3, 6), range(10, 14)],
)
SINKS, RECENT = 4, 8


@pytest.fixture(scope="module")
def read(tiny: Any) -> ReadPassage:
    return read_densely(tiny, PASSAGE)


def through(tiny: Any, read: ReadPassage, gates: torch.Tensor) -> torch.Tensor:
    return read_through_gates(tiny, read, gates, sinks=SINKS, recent=RECENT)


@torch.no_grad()
def test_open_gates_give_the_hidden_states_of_the_full_model(tiny: Any, read: ReadPassage) -> None:
    ids = torch.tensor([PASSAGE.context_ids + PASSAGE.question_ids])
    hidden = tiny.model.model(input_ids=ids).last_hidden_state[0]
    before = [60 + place - 1 for passkey in PASSAGE.passkeys for place in passkey]
    assert_close(read.hidden, hidden[before])
    assert_close(through(tiny, read, torch.ones(2, 2)), hidden[before], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("streaming", [0.25, 0.5, 1.0])
def test_closed_gates_give_the_logits_of_the_evictor(
    streaming: float, tiny: Any, read: ReadPassage, tmp_path: Path
) -> None:
    (tmp_path / "heads.tsv").write_text("0.3\t0.1\n0.2\t0.4\n")
    closed = {0.25: [(0, 1)], 0.5: [(0, 1), (1, 0)], 1.0: [(0, 0), (0, 1), (1, 0), (1, 1)]}
    gates = torch.ones(2, 2)
    for layer, head in closed[streaming]:
        gates[layer, head] = 0
    evictor = DuoAttention(
        heads=str(tmp_path / "heads.tsv"), streaming=streaming, sinks=SINKS, recent=RECENT
    )
    attention = SparseAttention(name="duo", evict={"duo": evictor}, maskers={})
    context = tiny.prefill(PASSAGE.context_ids, reserve_tokens=14, witness=attention.witness)
    kept = evicted(context, attention, tiny.model.config, seed=0)
    session = AttentionSession(attention, seed=0)
    session.begin_context(kept.length, kept.kept)
    with torch.inference_mode(), session.attached(tiny.model):
        expected = tiny.forward(PASSAGE.question_ids, kept.cache, logits=14)[0]
    with torch.no_grad():
        found = tiny.model.lm_head(through(tiny, read, gates))
    assert_close(found, expected[PASSAGE.predicting], atol=1e-3, rtol=1e-4)
    assert (found - tiny.model.lm_head(read.hidden)).abs().max() > 0.1


def test_a_half_open_gate_is_between_full_and_streaming(tiny: Any, read: ReadPassage) -> None:
    # The last layer's gates act on the last hidden states almost directly.
    def of(gate: float) -> torch.Tensor:
        gates = torch.ones(2, 2)
        gates[1] = gate
        with torch.no_grad():
            return (through(tiny, read, gates) - read.hidden).norm()

    assert 0.01 < of(0.5) < of(0.0)


def test_gradients_go_to_the_gates_alone(tiny: Any, read: ReadPassage) -> None:
    gates = torch.full((2, 2), 0.5, requires_grad=True)
    trained = [weight.requires_grad for weight in tiny.model.parameters()]
    with frozen(tiny):
        (through(tiny, read, gates) - read.hidden).square().mean().backward()
    assert gates.grad is not None
    assert (gates.grad < 0).all()  # Opening any gate brings the hidden states closer.
    assert all(weight.grad is None for weight in tiny.model.parameters())
    assert [weight.requires_grad for weight in tiny.model.parameters()] == trained


def test_a_model_with_local_layers_is_refused(build_model: Any) -> None:
    config = Gemma2Config(**SMALL, layer_types=["sliding_attention", "full_attention"])
    with pytest.raises(ConfigurationError, match=r"the layers \[0\] of Gemma2ForCausalLM do not"):
        require_gates(build_model(config, attention="eager"))
