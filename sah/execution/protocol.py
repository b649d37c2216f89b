"""Which part of an example runs under sparse attention."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which part of an example runs under the arm's attention; stored with every result.

    Decoded tokens always do. This choice alone can move a score from 12 to 98 (MagicPIG on
    niah_multikey_3), so scores of different protocols are never compared.
    """

    name: str
    context: Literal["dense"]
    """The context is prefilled with the model's own attention."""
    question: Literal["sparse", "dense"]
    """Attention of the question, the chat template's turn and the answer prefix. Evictors and
    rewriters work at the context's end before a sparse question, and after a dense one."""
    answer: Literal["free", "forced"] = "free"
    """`free`: every arm decodes its own answer. `forced` (teacher forcing): every arm is fed
    the tokens of the dense answer and its distributions are compared with the dense ones token by
    token; its text, and so the benchmark's score, is that of the dense answer."""
