"""Operations and host waits of a decoded token, alone and in batches.

    python perf/op_counts.py

Counts what a decode step launches on a GPU (the leaf operations of PyTorch, views left out) and how
often the host waits for it (`.item()`, `nonzero` and the like), divided by the tokens that the step
decodes. The sampler, which has to wait, is left out. Counts need no GPU: the code takes the path of
a device on the CPU (`sah.attention.host`), and with `--cpu` its own. They do not depend on the
machine or on what else runs. The model has the shape of SmolLM2-135M with random weights; contexts
have lengths of their own.
"""

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from sah.attention import SparseAttention, host
from sah.attention.session import AttentionSession
from sah.execution.building import build, compose
from sah.models.batch import Row, answer_rows
from sah.models.eviction import evicted
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder
from sah.models.tiny import tiny_tokenizer

PRESETS = (
    *("dense", "streaming_llm", "oracle_top_k", "oracle_top_p", "sparse", "random_sampling"),
    *("quest", "pq_cache", "socket", "vattention", "magic_pig", "loki", "snapkv", "adakv", "kivi"),
    *("h2o_decoding", "tova_decoding"),
)
CONTEXT, QUESTION, STEPS = 256, 8, 4
# Views and metadata, which launch nothing.
_FREE = frozenset(
    {
        *("view", "_unsafe_view", "reshape", "transpose", "permute", "expand", "slice", "select"),
        *("unsqueeze", "squeeze", "alias", "detach", "as_strided", "t", "unbind", "split", "lift"),
        *("split_with_sizes", "unfold", "empty", "empty_like", "new_empty", "lift_fresh"),
    }
)
# Operations whose result the host reads, or whose shape depends on numbers on the device.
_WAITS = frozenset(
    {
        *("_local_scalar_dense", "equal", "nonzero", "masked_select", "bincount", "histc"),
        *("_unique", "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive"),
    }
)


class Counting(TorchDispatchMode):
    """Counts operations and waits by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.waited: Counter[str] = Counter()
        self.is_paused = False

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.is_paused:
            return function(*args, **kwargs)
        # In inference mode, operations arrive here before they are taken apart.
        with self:
            result = function.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        counts = self.waited if _waits(function, args, kwargs) else self.counts
        counts[function.overloadpacket.__name__] += 1
        return function(*args, **kwargs)

    @property
    def operations(self) -> int:
        return sum(count for name, count in self.counts.items() if name not in _FREE)

    @property
    def waits(self) -> int:
        return self.waited.total()


def _waits(function: Any, args: Any, kwargs: Any) -> bool:
    name = function.overloadpacket.__name__
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        flags = (torch.bool, torch.uint8)
        return any(index is not None and index.dtype in flags for index in args[1])
    return name in _WAITS


class Endless:
    """Takes the best token, which is not counted; no answer ends before its limit."""

    def __init__(self, counting: Counting) -> None:
        self.counting = counting

    def choose(self, logits: torch.Tensor) -> int:
        self.counting.is_paused = True
        token = int(logits.argmax())
        self.counting.is_paused = False
        return token


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="*", default=[1, 8, 32])
    parser.add_argument("--presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--cpu", action="store_true", help="count the path of the CPU")
    options = parser.parse_args()
    model = language_model()
    titles = "".join(f"{f'{rows} rows':>12}{'waits':>8}" for rows in options.rows)
    print(f"{'per token':18s}{titles}")
    for name in options.presets:
        with nullcontext() if options.cpu else as_on_a_device():
            counted = [count(model, name, rows) for rows in options.rows]
        cells = "".join(f"{operations:12,.0f}{waits:8.1f}" for operations, waits in counted)
        print(f"{name:18s}{cells}", flush=True)


def as_on_a_device() -> Any:
    """Return a context manager inside which tensors count as on a device."""
    return patch.object(host, "holds", lambda _: False)


def language_model() -> LanguageModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=400,
        max_position_embeddings=4096,
    )
    model = LanguageModel(LlamaForCausalLM(config), PromptEncoder(tiny_tokenizer(), None))
    model.eos_token_ids = frozenset()
    return model


def count(model: LanguageModel, name: str, rows: int) -> tuple[float, float]:
    """Return operations and host waits per token of the last decode steps."""
    attention = build(compose([f"attention={name}"]), "sparse_attention")
    sparse = isinstance(attention, SparseAttention)
    witness = attention.witness if sparse else None
    counting = Counting()
    asked = []
    for row in range(rows):
        ids = [2 + (7 * token + row) % 390 for token in range(CONTEXT - row)]
        context = model.prefill(ids, reserve_tokens=QUESTION + STEPS + 1, witness=witness)
        if witness is not None:
            context = evicted(context, attention, model.model.config, seed=0)
        session = AttentionSession(attention.after_context if sparse else attention, seed=0)
        session.begin_context(context.length, context.kept)
        asked.append(
            Row(
                example_id=f"row {row}",
                context=context,
                question_ids=ids[:QUESTION],
                session=session,
                sampler=Endless(counting),
                max_new_tokens=STEPS,
            )
        )
    answer_rows(model, asked, between_tokens=last_steps(counting))
    counting.__exit__(None, None, None)
    # The first step is not counted: it builds what later ones reuse.
    tokens = rows * (STEPS - 2)
    return counting.operations / tokens, counting.waits / tokens


def last_steps(counting: Counting) -> Callable[[], None]:
    """Return what begins to count at the second decode step."""
    steps = iter(range(STEPS))

    def between() -> None:
        if next(steps) == 1:
            counting.__enter__()

    return between


if __name__ == "__main__":
    main()
