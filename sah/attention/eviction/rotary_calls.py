"""Records how a model rotates its queries while it reads a context."""

# B batch, H query heads, N tokens, P positions, D head dimension, R rotated dimensions

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sah.attention.eviction.rotary import Rotary, replay

# apply_rotary_pos_emb, and others in models that rotate a part of each head.
_FUNCTIONS = "apply_rotary"


class RotaryCalls:
    """What a model rotated since the last layer, and by which angles.

    The queries that an attention function gets are rotated already. transformers' models rotate
    them by a function `apply_rotary...` beside their attention class, and take the angles from
    modules called ...RotaryEmbedding; both are recorded.
    """

    def __init__(self, model: nn.Module) -> None:
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []
        self._angles: list[tuple[nn.Module, tuple[Any, ...], dict[str, Any], Any]] = []
        self._known: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor]] = {}
        self._is_asking = False
        self._taken: set[nn.Module] = set()
        self.embeddings = [
            module for module in model.modules() if "RotaryEmbedding" in type(module).__name__
        ]
        files = {sys.modules[type(module).__module__] for module in model.modules()}
        self.functions = [
            (file, name) for file in files for name in vars(file) if name.startswith(_FUNCTIONS)
        ]

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Record inside the block; restore the model on exit."""
        with ExitStack() as stack:
            for file, name in self.functions:
                function = getattr(file, name)
                stack.callback(setattr, file, name, function)
                setattr(file, name, self._noting(function))
            for embedding in self.embeddings:
                hook = embedding.register_forward_hook(self._note_angles, with_kwargs=True)
                stack.callback(hook.remove)
            yield

    def forget(self) -> None:
        """Drop what the layer at work rotated."""
        self._calls.clear()

    def take(
        self, module: nn.Module, query: Tensor, positions: int
    ) -> tuple[Tensor, Rotary] | None:
        """Return a layer's queries before the rotation, and the rotary embedding.

        Args:
            module: the attention module at work.
            query: what its attention function got, [B, H, N, D], of a context of N tokens.
            positions: the number of positions to know the angles of.

        Returns:
            None if the layer rotates in an unknown way.
        """
        calls, self._calls = self._calls, []
        if module in self._taken:
            # It calls its attention function twice (DiffLlama): what was rotated is not clear.
            return None
        self._taken.add(module)
        if not calls:
            # A layer without a position embedding (SmolLM3), or a model without rotary embeddings.
            own = sys.modules[type(module).__module__]
            is_known = not self.embeddings or any(file is own for file, _ in self.functions)
            return (query, Rotary(rotate=None)) if is_known else None
        function, arguments, keywords, output = calls[-1]
        if len(arguments) < 4 or not isinstance(output, tuple) or output[0] is not query:
            # As where only a part of each head is rotated, or a factor follows.
            return None
        unrotated, _, cos, _, *rest = arguments
        angles = self._angles_at(cos, positions)
        if angles is None:
            return None
        rotate = replay(function, tuple(rest), keywords)
        return unrotated, Rotary(rotate=rotate, cos=angles[0], sin=angles[1])

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def apply(*arguments: Any, **keywords: Any) -> Any:
            output = function(*arguments, **keywords)
            self._calls.append((function, arguments, keywords, output))
            return output

        return apply

    def _note_angles(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not self._is_asking:
            self._angles.append((module, args, kwargs, output))

    def _angles_at(self, cos: Tensor, positions: int) -> tuple[Tensor, Tensor] | None:
        """Return cosine and sine of positions 0 to P - 1, in float32, by the module of `cos`."""
        for number, (module, args, kwargs, output) in enumerate(self._angles):
            # An embedding that depends on the length computes one more, which is cut off later.
            given = output[0][..., : cos.shape[-2], :] if isinstance(output, tuple) else None
            if given is None or given.shape != cos.shape or not given.to(cos).equal(cos):
                continue
            known = (number, positions, cos.device)
            if known not in self._known:
                self._is_asking = True
                try:
                    found = module(
                        *(_at(value, positions) for value in args),
                        **{name: _at(value, positions) for name, value in kwargs.items()},
                    )
                finally:
                    self._is_asking = False
                # The layers of a model may be on several devices.
                self._known[known] = (found[0].to(cos.device), found[1].to(cos.device))
            return self._known[known]
        return None


def _at(argument: Any, positions: int) -> Any:
    """Return an argument of a rotary embedding for positions 0 to P - 1, in float32."""
    if not isinstance(argument, Tensor):
        return argument
    if argument.is_floating_point():
        return argument[..., :1].float()  # only its dtype and device count
    numbers = torch.arange(positions, device=argument.device)
    return numbers.expand(*argument.shape[:-1], positions)
