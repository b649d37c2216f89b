"""The checks of `sah.models.gate` for a model that comes without its tokenizer."""

import random
from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedModel

from sah.models.gate_memory import require_measurable
from sah.models.language_model import LanguageModel
from sah.models.loading.weights import embedding_size

_TOKENS = 128


def measurable(model: PreTrainedModel) -> LanguageModel:
    """Check that sparse attention can be measured on a model, with tokens from its vocabulary.

    Raises:
        ConfigurationError: naming why it cannot.
    """
    checked = LanguageModel(model, _prompts(embedding_size(model)))
    require_measurable(checked)
    return checked


def _prompts(size: int) -> Any:
    """Return what the checks need of a prompt encoder: some token ids, whatever the text.

    They are spread over the middle of the vocabulary: marks and placeholders are at its ends.
    """
    ids = [size // 10 + (8 * size // 10) * number // _TOKENS for number in range(_TOKENS)]
    random.Random(0).shuffle(ids)

    def tokenizer(text: str, **options: Any) -> SimpleNamespace:
        return SimpleNamespace(input_ids=ids)

    tokenizer.eos_token_id = None  # type: ignore[attr-defined]
    return SimpleNamespace(tokenizer=tokenizer)
