"""A small Llama with random weights, made in memory in well under a second; for tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from sah.models.hub import resolve_device_and_dtype
from sah.models.thoughts import check_thinking
from sah.seeding import derive
from sah.validation import check_types

if TYPE_CHECKING:
    from transformers import LlamaConfig

    from sah.models.language_model import LanguageModel
    from sah.models.loading.outline import ModelOutline
    from sah.models.prompts import PromptEncoder

_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}"
    "<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

# Enough text for merges into words; any other text falls back to bytes.
_CORPUS = (
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.",
    "One of the special magic numbers for the key is hidden within the following text.",
    "What is the answer to the question about the context mentioned in the provided text?",
    "0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ",
)


@dataclass(frozen=True, kw_only=True)
class TinyModel:
    """A Llama with random weights: its answers are meaningless but depend on every key.

    The weights are larger than an untrained model's, so that attention is peaked and a sparse
    method that misses keys gives another answer.
    """

    name: str = "tiny"
    layers: int = 2
    """Number of layers."""
    heads: int = 4
    """Query heads."""
    key_value_heads: int = 2
    """Key-value heads; a divisor of `heads`."""
    head_dim: int = 16
    """Dimension of a head; even."""
    max_tokens: int = 8192
    """Longest sequence."""
    weight_seed: int = 0
    """Seed of the random weights."""
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Options of the chat template, which reads none."""
    thinking: str | Mapping[str, str] | None = "auto"
    """The marks around a thought, as for other models; this one has none."""
    dtype: str = "auto"
    """auto (bfloat16 on a GPU, float32 on a CPU), or a torch name such as float16."""
    device: str = "auto"
    """auto (the first GPU, else the CPU), or a torch name such as cuda:1."""

    def __post_init__(self) -> None:
        check_types(self)
        resolve_device_and_dtype(self.device, self.dtype)
        check_thinking(self.thinking)
        for name in ("layers", "heads", "key_value_heads", "head_dim", "max_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} must be at least 1, got {getattr(self, name)}")
        if self.head_dim % 2:
            raise ValueError(
                f"model.head_dim must be even for the rotary embedding, got {self.head_dim}"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"model.heads={self.heads} is not a multiple of key_value_heads="
                f"{self.key_value_heads}"
            )

    def known_max_tokens(self) -> int:
        """Return the configured limit."""
        return self.max_tokens

    def prompts(self) -> "PromptEncoder":
        """Make only the tokenizer."""
        from sah.models.prompts import PromptEncoder

        return PromptEncoder(
            tiny_tokenizer(),
            self.max_tokens,
            template_kwargs=self.template_kwargs,
            thinking=self.thinking,
        )

    def fetch(self) -> str:
        """Download nothing, as the model is made in memory."""
        return f"{self.name} is made in memory"

    def load(self) -> "LanguageModel":
        """Make the model and its tokenizer."""
        from transformers import LlamaForCausalLM

        from sah.models.gate_memory import require_measurable
        from sah.models.language_model import LanguageModel

        device, dtype = resolve_device_and_dtype(self.device, self.dtype)
        # transformers draws the initial weights from the global generator; its state is restored,
        # and every weight is drawn again from a seeded generator.
        with torch.random.fork_rng(devices=[]):
            model: Any = LlamaForCausalLM(self._config())
        randomize(model, derive(self.weight_seed, "tiny"))
        loaded = LanguageModel(model.to(device, dtype), self.prompts())
        require_measurable(loaded)
        return loaded

    def outline(self, dtype: torch.dtype) -> "ModelOutline":
        """Make the model without weights."""
        from transformers import LlamaForCausalLM

        from sah.models.loading.outline import ModelOutline

        return ModelOutline.of(LlamaForCausalLM, self._config(), dtype)

    def _config(self) -> "LlamaConfig":
        from transformers import LlamaConfig

        tokenizer = self.prompts().tokenizer
        return LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.heads * self.head_dim,
            intermediate_size=2 * self.heads * self.head_dim,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            max_position_embeddings=self.max_tokens,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )


def randomize(model: torch.nn.Module, seed: int, scale: float = 0.25) -> None:
    """Redraw all weight matrices from a normal distribution with standard deviation `scale`."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)


@cache
def tiny_tokenizer() -> Any:
    """Return a byte-level BPE tokenizer with about 400 tokens and a chat template."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from tokenizers.trainers import BpeTrainer
    from transformers import PreTrainedTokenizerFast

    special = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|end|>",
        chat_template=_TEMPLATE,
    )
