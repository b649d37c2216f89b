"""Training of gates on a model whose retrieval heads are known, and what is refused."""

from typing import Any

import pytest

from sah.calibration.gate_training import GateTraining, trained_gates
from sah.errors import ConfigurationError
from sah.models.induction import InductionModel

SMALL = GateTraining(steps=24, learning_rate=0.1, sinks=4, recent=32, passkeys=3, passkey_words=4)


def test_heads_that_retrieve_stay_open_and_heads_that_read_nearby_tokens_close(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Layer 0 of the induction model reads the last tokens, layer 1 copies from anywhere."""
    caplog.set_level("INFO", "sah.calibration")
    model = InductionModel().load()
    passages = SMALL.passages(model.prompts, text=None, tokens=800, passage_tokens=400)
    gates = trained_gates(model, passages, SMALL)
    assert gates.shape == (2, 2)
    assert gates[0].max() < 0.1
    assert gates[1].min() > 0.8
    measured = caplog.messages[-1]
    assert "tokens of passkeys retrieved on 1 held-out passages" in measured
    *_, full, lowest, random, highest = (
        float(word) for word in measured.replace("(", " ").split() if word[0] == "0"
    )
    assert full == lowest > highest
    assert lowest >= random >= highest


def test_training_is_repeatable(tiny: Any) -> None:
    passages = SMALL.passages(tiny.prompts, text=None, tokens=1500, passage_tokens=900)
    training = GateTraining(steps=2, sinks=4, recent=32)
    first, again = (trained_gates(tiny, passages, training) for _ in range(2))
    assert first.equal(again)
    assert 0 <= first.min() < first.max() <= 1


def test_contexts_without_a_key_to_drop_are_refused(tiny: Any) -> None:
    passages = SMALL.passages(tiny.prompts, text=None, tokens=1500, passage_tokens=900)
    with pytest.raises(ConfigurationError, match=r"more than sinks \+ recent = 1004 .* has \d+;"):
        trained_gates(tiny, passages, GateTraining(sinks=4, recent=1000))


def test_a_single_passage_is_refused(tiny: Any) -> None:
    passages = SMALL.passages(tiny.prompts, text=None, tokens=1, passage_tokens=900)
    with pytest.raises(ConfigurationError, match=r"at least two passages.*raise tokens"):
        trained_gates(tiny, passages, SMALL)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"sinks": -1}, "sinks must be at least 0, got -1"),
        ({"regularisation": -0.5}, "regularisation must be at least 0, got -0.5"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"passkeys": 11}, "passkeys must be at most 10, got 11"),
    ],
)
def test_an_invalid_setting_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GateTraining(**options)
