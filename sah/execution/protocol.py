"""Who is sparse when."""

from dataclasses import dataclass
from typing import Literal

from sah.validation import check_types


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Which part of an example runs under the arm's attention; part of every result.

    Decoded tokens always do. The choice alone can move a score from 12 to 98 (MagicPIG on
    niah_multikey_3), so that numbers of different protocols are never compared.
    """

    name: str
    context: Literal["dense"]
    """The context is prefilled with the model's own attention."""
    question: Literal["sparse", "dense"]
    """How the question, the template's turn and the answer prefix are computed."""

    answer: Literal["free", "forced"] = "free"
    """`forced`: every arm is given the tokens that dense attention answers, and its
    distributions are compared with dense ones token by token. Its text, and so the
    benchmark's own score, is that of the dense answer."""

    def __post_init__(self) -> None:
        check_types(self)
