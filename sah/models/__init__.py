"""Loading a model, encoding a prompt, prefilling a context, answering from it."""

from sah.models.generation import Generation
from sah.models.hub import HubModel
from sah.models.language_model import Answer, LanguageModel, PrefilledContext
from sah.models.prompts import EncodedPrompt, PromptEncoder

__all__ = [
    "Answer",
    "EncodedPrompt",
    "Generation",
    "HubModel",
    "LanguageModel",
    "PrefilledContext",
    "PromptEncoder",
]
