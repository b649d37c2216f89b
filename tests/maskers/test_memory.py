"""A decode step reads the index and the selected keys, without a copy of the keys per head."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from presets import SELECTING
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sah.attention import weighted_attention

KEYS = 4096
# Methods with calibration files need the tiny model's shapes; the others get larger ones.
CALIBRATED = {"heads": 4, "groups": 2, "dim": 16}
LARGER = {"heads": 8, "groups": 2, "dim": 64}


class LargestOutput(TorchDispatchMode):
    """Records the number of elements of the largest new tensor; views are not new."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0
        self.operation = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        given = {
            part.untyped_storage().data_ptr()
            for leaf in tree_leaves((args, kwargs))
            if isinstance(leaf, torch.Tensor)
            for part in strided_parts(leaf)
        }
        for leaf in tree_leaves(output):
            for part in strided_parts(leaf) if isinstance(leaf, torch.Tensor) else ():
                storage = part.untyped_storage()
                # Count storages, not shapes: expanded tensors take no memory.
                size = storage.nbytes() // part.element_size()
                if storage.data_ptr() not in given and size > self.elements:
                    self.elements, self.operation = size, str(func)
        return output


def strided_parts(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the tensor, or the three that a sparse matrix consists of."""
    if tensor.layout == torch.sparse_csr:
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    return (tensor,)


@pytest.mark.parametrize("name", SELECTING)
def test_a_decode_step_allocates_nothing_as_large_as_the_keys_of_every_query_head(
    name: str, composed: Callable[..., Any], make_inputs: Callable[..., Any]
) -> None:
    config = composed(f"sparse_attention={name}")
    needs_calibration = any(
        "channels" in masker or "weights" in masker for masker in config.maskers.values()
    )
    shape = CALIBRATED if needs_calibration else LARGER
    inputs = make_inputs(keys=KEYS, **shape)
    attention = instantiate(config, _convert_="all", dense_layers=[])
    # Build the indexes first; that is not part of a step.
    attention.select(inputs)
    step = make_inputs(keys=KEYS, **shape)
    step.indexes.update(inputs.indexes)
    with LargestOutput() as largest:
        weighted_attention(step, attention.select(step))
    assert largest.elements > 0
    assert largest.elements < shape["heads"] * KEYS * shape["dim"], largest.operation


def test_a_copy_of_the_keys_per_query_head_is_detected(make_inputs: Callable[..., Any]) -> None:
    inputs = make_inputs(keys=KEYS, **LARGER)
    with LargestOutput() as largest:
        inputs.key.repeat_interleave(4, dim=1)
    assert largest.elements == math.prod([LARGER["heads"], KEYS, LARGER["dim"]])
