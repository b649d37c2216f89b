"""Loading weights, completely: tensors that are missing, left over or misshapen are refused."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from sah.errors import ModelLoadingError
from sah.models.loading.architecture import LOADING_ERRORS, raise_unless_loading, reason

logger = logging.getLogger(__name__)

# Ids of special tokens and bookkeeping; every other key would change what `generate` does.
_NOT_SAMPLING = (
    "bos_token_id",
    "cache_implementation",
    "decoder_start_token_id",
    "eos_token_id",
    "pad_token_id",
    "transformers_version",
    "use_cache",
)


def load_weights(
    auto_class: Any,
    name_or_path: str,
    config: Any,
    *,
    dtype: torch.dtype,
    common: Mapping[str, Any],
    options: Mapping[str, Any],
    overridden: bool,
    way_out: str,
) -> Any:
    """Load a model.

    Args:
        auto_class: the auto class of transformers that loads it.
        name_or_path: Hub id or folder.
        config: the model's config.
        dtype: type of the weights that are not quantised.
        common: arguments of every `from_pretrained`.
        options: further arguments of the model's `from_pretrained`.
        overridden: whether the user changed the config, so that tensors may be left over.
        way_out: ends the message of an error.

    Raises:
        ModelLoadingError: if the files cannot be read, or do not hold exactly this model.
    """
    from transformers.utils.hub import extract_commit_hash

    _check_generation_config(name_or_path, common)
    try:
        with _without_load_report():
            loading: Any = auto_class.from_pretrained(
                name_or_path,
                config=config,
                dtype=dtype,
                output_loading_info=True,
                # Refused below with the tensor's name, which transformers' own error lacks.
                ignore_mismatched_sizes=True,
                **common,
                **options,
            )
    except LOADING_ERRORS as error:
        raise_unless_loading(error)
        message = f"cannot load the weights of {name_or_path!r}: {reason(error)}"
        if isinstance(error, ImportError):
            # A library or a kernel that this machine lacks: the files are not to blame.
            raise ModelLoadingError(message) from error
        pointer = _lfs_pointer(Path(name_or_path))
        raise ModelLoadingError(f"{message}{pointer or f'; {way_out}'}") from error
    model, report = loading
    _check_complete(name_or_path, report, way_out)
    _check_left_over(name_or_path, model, report["unexpected_keys"], overridden=overridden)
    _check_end_tokens(name_or_path, model)
    _log_sampling_defaults(name_or_path, model)
    # transformers 5 no longer records it.
    model.config._commit_hash = extract_commit_hash(
        _file(name_or_path, "config.json", common), None
    )
    return model


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Leave out transformers' table of tensors: the checks below say what is in it."""

    def is_other(record: logging.LogRecord) -> bool:
        return "LOAD REPORT" not in record.getMessage()

    transformers_logger = logging.getLogger("transformers.modeling_utils")
    transformers_logger.addFilter(is_other)
    try:
        yield
    finally:
        transformers_logger.removeFilter(is_other)


def _lfs_pointer(folder: Path) -> str:
    """Say that weights are the pointers that git leaves behind without git-lfs, if they are."""
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            if file.read(20) == b"version https://git-":
                return f"; {path.name} is a Git LFS pointer: run `git lfs pull` in the folder"
    return ""


def _check_complete(name_or_path: str, report: Mapping[str, Any], way_out: str) -> None:
    # transformers only warns, and initialises both kinds at random.
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadingError(
            f"the weights of {name_or_path!r} lack {len(missing)} of the model's tensors "
            f"(the first is {missing[0]}); {way_out}"
        )
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, stored, expected = mismatched[0]
        raise ModelLoadingError(
            f"the weights of {name_or_path!r} do not fit its config: {name} is {list(stored)} "
            f"instead of {list(expected)} ({len(mismatched)} such tensors); correct config.json or "
            "model.model_kwargs"
        )


def _check_left_over(
    name_or_path: str, model: torch.nn.Module, names: set[str], *, overridden: bool
) -> None:
    """Refuse tensors that the text model should have read; log those of parts that it lacks.

    A bias, a scale or a layer that the config does not describe changes every answer. A part at
    the top level that the model does not have, such as a vision tower or a value head, does not.
    """
    if not names:
        return
    if not overridden:
        inside = sorted(name for name in names if _is_inside(model, name))
        if inside:
            raise ModelLoadingError(
                f"the weights of {name_or_path!r} hold {len(inside)} tensors that its config does "
                f"not describe (the first is {inside[0]}); correct config.json"
            )
    logger.warning(
        "%s: %d tensors are not used (the first is %s)", name_or_path, len(names), min(names)
    )


def _is_inside(model: Any, name: str) -> bool:
    """Whether a tensor belongs to a part that the model has, or to its base model directly.

    Layers that only predict further tokens (`num_nextn_predict_layers`), and scales of a quantised
    cache, do not change what the model itself computes.
    """
    text = model.config.get_text_config(decoder=True)
    first, *rest = name.split(".")
    layer = re.search(r"\.layers\.(\d+)\.", name)
    further: int = getattr(text, "num_nextn_predict_layers", None) or 0
    if further and layer is not None and int(layer[1]) >= text.num_hidden_layers:
        return False
    if rest and rest[-1] in ("k_scale", "v_scale"):
        return False
    base = getattr(model, model.base_model_prefix, None)
    if first != model.base_model_prefix or base is None or not rest:
        return first in _parts(model)
    return rest[0] in _parts(base) or text is model.config


def _parts(module: torch.nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()} | {
        name for name, _ in module.named_parameters(recurse=False)
    }


def _check_generation_config(name_or_path: str, common: Mapping[str, Any]) -> None:
    """Refuse a generation config that cannot be read: transformers skips it without a word."""
    path = _file(name_or_path, "generation_config.json", common)
    if path is None:
        return
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadingError(
            f"cannot read generation_config.json of {name_or_path!r}: {reason(error)}; correct "
            "it, or delete it to use the end tokens of config.json"
        ) from error
    if not isinstance(content, dict):
        raise ModelLoadingError(
            f"generation_config.json of {name_or_path!r} is not a JSON object; correct it, or "
            "delete it to use the end tokens of config.json"
        )


def _file(name_or_path: str, file: str, common: Mapping[str, Any]) -> str | None:
    from transformers.utils.hub import cached_file

    return cached_file(
        name_or_path,
        file,
        revision=common["revision"],
        local_files_only=common["local_files_only"],
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )


def _check_end_tokens(name_or_path: str, model: Any) -> None:
    given = model.generation_config.eos_token_id if model.generation_config else None
    ids = given if isinstance(given, list) else [] if given is None else [given]
    for token in ids:
        if not isinstance(token, int) or isinstance(token, bool) or token < 0:
            raise ModelLoadingError(
                f"the generation config of {name_or_path!r} has eos_token_id={given!r}; it must "
                "be a token id or a list of them"
            )


def _log_sampling_defaults(name_or_path: str, model: Any) -> None:
    """Say which of the checkpoint's generation defaults have no effect."""
    if model.generation_config is None:
        return
    ignored = {
        name: value
        for name, value in model.generation_config.to_diff_dict().items()
        if name not in _NOT_SAMPLING and not name.startswith("_") and value not in (None, False)
    }
    if ignored:
        logger.info(
            "the generation config of %s is ignored (%s): generation.* and the benchmark decide "
            "how answers are generated",
            name_or_path,
            ", ".join(f"{name}={value}" for name, value in sorted(ignored.items())),
        )


def warn_of_ids_beyond(model: Any, tokenizer: Any, name_or_path: str) -> None:
    """Warn of tokens that the embedding lacks. Many are never used, so only prompts are refused."""
    size = embedding_size(model)
    beyond = sorted((token, text) for text, token in tokenizer.get_vocab().items() if token >= size)
    if beyond:
        logger.warning(
            "the tokenizer of %s has %d tokens beyond the model's embedding of %d rows (the first "
            "is %d, %r); a prompt with one of them is refused",
            name_or_path,
            len(beyond),
            size,
            *beyond[0],
        )


def embedding_size(model: Any) -> int:
    """Return the number of tokens in a model's input embedding."""
    embedding = model.get_input_embeddings()
    return int(getattr(embedding, "num_embeddings", None) or embedding.weight.shape[0])
