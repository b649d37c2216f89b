"""Conversion of HashAttention's published weights to the file that the masker reads."""

# H query heads, I inputs and O outputs of a linear map

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sah.calibration.unpickling import read_tensors
from sah.errors import ConfigurationError

# Names in the authors' checkpoints: modules 0, 2, 4 of a head's network; 1 and 3 are SiLUs.
_MODULE = re.compile(
    r"(?P<layer>\d+)\.learning_to_hash_transformation_(?P<kind>[qk])"
    r"\.(?P<head>\d+)\.(?P<module>\d+)\.(?P<tensor>weight|bias)"
)

_KINDS = {"q": "query", "k": "key"}


def converted_networks(path: Path) -> dict[str, Tensor]:
    """Read published weights and convert them to the layout of `HashNetworks.of_layer`.

    There are two formats: {layer: {query_matrix, query_bias, key_matrix, key_bias}}, each a list
    with a matrix [H, I, O] or a bias [H, O] per linear map; and state dicts with
    `{layer}.learning_to_hash_transformation_{q|k}.{head}.{0|2|4}.{weight|bias}`, weights [O, I].

    Returns:
        `layers.{layer}.{query|key}.{n}.{weight|bias}`, weights [H, I, O], biases [H, O], in the
        dtype of the file.

    Raises:
        ConfigurationError: if the file has neither format, or its shapes do not match.
    """
    content = read_tensors(path)
    if not isinstance(content, Mapping) or not content:
        raise _unknown_format(path, f"it holds a {type(content).__name__}")
    if all(isinstance(value, Mapping) for value in content.values()):
        tensors = _from_matrices(path, content)
    else:
        tensors = _from_modules(path, content)
    _check_shapes(path, tensors)
    return tensors


def _from_matrices(path: Path, content: Mapping[Any, Mapping[Any, Any]]) -> dict[str, Tensor]:
    tensors = {}
    for layer, of_layer in content.items():
        for kind in _KINDS.values():
            matrices, biases = (
                _tensors(path, layer, of_layer, f"{kind}_{part}") for part in ("matrix", "bias")
            )
            if len(matrices) != len(biases):
                raise ConfigurationError(
                    f"{path}: layer {layer} has {len(matrices)} tensors in {kind}_matrix but "
                    f"{len(biases)} in {kind}_bias"
                )
            for number, (matrix, bias) in enumerate(zip(matrices, biases, strict=True)):
                tensors[f"layers.{layer}.{kind}.{number}.weight"] = matrix
                tensors[f"layers.{layer}.{kind}.{number}.bias"] = bias
    return tensors


def _tensors(path: Path, layer: Any, of_layer: Mapping[Any, Any], name: str) -> Sequence[Tensor]:
    found = of_layer.get(name)
    if not isinstance(found, list | tuple) or not all(isinstance(item, Tensor) for item in found):
        raise _unknown_format(path, f"layer {layer} has no list of tensors named {name}")
    return found


def _from_modules(path: Path, content: Mapping[Any, Any]) -> dict[str, Tensor]:
    # (layer, kind, module, tensor name) to the tensor of each head
    heads: dict[tuple[int, str, int, str], dict[int, Tensor]] = {}
    for name, tensor in content.items():
        match = _MODULE.fullmatch(str(name))
        if match is None or not isinstance(tensor, Tensor):
            raise _unknown_format(path, f"it has an entry {name!r}")
        key = (int(match["layer"]), match["kind"], int(match["module"]), match["tensor"])
        heads.setdefault(key, {})[int(match["head"])] = tensor
    tensors = {}
    for (layer, kind, module, part), per_head in sorted(heads.items()):
        name = f"layers.{layer}.{_KINDS[kind]}.{module // 2}.{part}"
        if sorted(per_head) != list(range(len(per_head))):
            raise ConfigurationError(
                f"{path}: {name} has only the heads {sorted(per_head)}; some are missing"
            )
        shapes = {tuple(tensor.shape) for tensor in per_head.values()}
        if len(shapes) > 1:
            raise ConfigurationError(
                f"{path}: {name} has heads of different shapes: {sorted(shapes)}"
            )
        stacked = torch.stack([per_head[head] for head in sorted(per_head)])
        # Weights H O I -> H I O, as torch.nn.Linear has its outputs first; biases stay H O.
        tensors[name] = stacked.transpose(1, 2).contiguous() if part == "weight" else stacked
    return tensors


def _check_shapes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Check that consecutive maps fit, and that query and key signatures have equal lengths."""
    signatures: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, weight in tensors.items():
        network, number, part = name.rsplit(".", 2)
        if part == "bias":
            continue
        bias, after = f"{network}.{number}.bias", f"{network}.{int(number) + 1}.weight"
        _require(path, name, weight, weight.ndim == 3, "[heads, in, out]")
        heads, _, outputs = weight.shape
        if bias not in tensors:
            raise ConfigurationError(f"{path}: {name} has no matching {bias}")
        fits = tuple(tensors[bias].shape) == (heads, outputs)
        _require(path, bias, tensors[bias], fits, f"{[heads, outputs]} as {name} requires")
        if after in tensors:
            following = tensors[after]
            fits = tuple(following.shape[:2]) == (heads, outputs)
            _require(path, after, following, fits, f"[{heads}, {outputs}, out] as {name} requires")
        else:
            layer, kind = network.rsplit(".", 1)
            signatures.setdefault(layer, {})[kind] = (heads, outputs)
    for layer, kinds in signatures.items():
        if len(set(kinds.values())) != 1 or set(kinds) != set(_KINDS.values()):
            raise ConfigurationError(
                f"{path}: the last maps of {layer} have (heads, bits) {kinds}; queries and keys "
                "must have the same"
            )


def _require(path: Path, name: str, tensor: Tensor, fits: bool, expected: str) -> None:
    if not fits:
        raise ConfigurationError(f"{path}: {name} is {list(tensor.shape)}, not {expected}")


def _unknown_format(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path} does not hold published weights of HashAttention: {what}; expected layers with "
        "query_matrix, query_bias, key_matrix and key_bias, or a state dict with "
        "LAYER.learning_to_hash_transformation_q.HEAD.MODULE.weight"
    )
