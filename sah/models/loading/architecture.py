"""What a checkpoint is, by its config: the class that loads it, or one sentence that refuses it."""

import copy
import inspect
import json
import logging
from collections.abc import Mapping
from json import JSONDecodeError
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from sah.errors import ModelLoadingError, SahError, category
from sah.models.loading.options import check_nested_options, check_overrides

logger = logging.getLogger(__name__)

LOADING_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    UnpicklingError,
    ValueError,
)
"""Raised by transformers for files that it cannot read or that contradict each other.

A pickle that would run code raises UnpicklingError.
"""

# Libraries that transformers requires without saying how to install them.
_PACKAGES = {"hqq": "hqq", "quark": "amd-quark"}


def read_config(name_or_path: str, common: Mapping[str, Any], overrides: Mapping[str, Any]) -> Any:
    """Read a model's config.json, with overrides.

    Args:
        name_or_path: Hub id or folder.
        common: arguments of every `from_pretrained`.
        overrides: values in place of the config's.

    Raises:
        ModelLoadingError: if it is not the config of a transformers model that can be loaded here.
        ConfigurationError: if it has no place for an override.
    """
    from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig

    refuse_adapter(name_or_path, common)
    files = {name: value for name, value in common.items() if name != "trust_remote_code"}
    try:
        content, _ = PreTrainedConfig.get_config_dict(name_or_path, **files)
        kind = content.get("model_type")
        own_code = content.get("auto_map", {})
        if kind not in CONFIG_MAPPING and not common["trust_remote_code"]:
            if own_code:
                raise ModelLoadingError(_runs_code(name_or_path, own_code))
            raise ModelLoadingError(_unknown(name_or_path, content))
        config, unused = AutoConfig.from_pretrained(
            name_or_path, return_unused_kwargs=True, **common, **copy.deepcopy(dict(overrides))
        )
    except LOADING_ERRORS as error:
        raise_unless_loading(error)
        changed = f" with model.model_kwargs {', '.join(overrides)}" if overrides else ""
        raise ModelLoadingError(
            f"cannot read config.json of {name_or_path!r}{changed}: {reason(error)}"
        ) from error
    check_overrides(config, overrides, unused)
    return config


def refuse_adapter(name_or_path: str, common: Mapping[str, Any]) -> None:
    """Refuse a LoRA adapter, which transformers ignores or applies depending on what is installed.

    Raises:
        ModelLoadingError: naming its base model.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    files = {name: value for name, value in common.items() if name != "trust_remote_code"}
    found = find_adapter_config_file(name_or_path, **files)
    if found is None:
        return
    try:
        base = json.loads(Path(found).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, LookupError, TypeError):
        base = "unknown"
    raise ModelLoadingError(
        f"{name_or_path!r} holds an adapter (adapter_config.json, base model {base!r}), not a "
        "whole model; merge it once with peft (merge_and_unload, then save_pretrained), and load "
        "the result"
    )


def auto_class(name_or_path: str, config: Any, *, trust_remote_code: bool) -> Any:
    """Return the auto class of transformers that loads a model as a causal language model.

    A multimodal model that transformers does not also offer as a text model is loaded whole;
    only its text model is used.

    Raises:
        ModelLoadingError: if it is another kind of model.
    """
    from transformers import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_MASKED_LM_MAPPING,
        MODEL_FOR_MULTIMODAL_LM_MAPPING,
        MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
        AutoModelForCausalLM,
        AutoModelForMultimodalLM,
    )

    kind = type(config)
    own_code = getattr(config, "auto_map", None) or {}
    if "AutoModelForCausalLM" in own_code and trust_remote_code:
        return AutoModelForCausalLM
    has_text = (
        kind in MODEL_FOR_CAUSAL_LM_MAPPING
        or kind in MODEL_FOR_MULTIMODAL_LM_MAPPING
        or kind in MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING
    )
    what = None
    if not has_text:
        if "AutoModelForCausalLM" in own_code:
            raise ModelLoadingError(_runs_code(name_or_path, own_code))
        what = "is not a language model"
    elif config.is_encoder_decoder:
        what = "is an encoder-decoder model, which reads the context with an encoder"
    elif getattr(config, "is_decoder", None) is False and kind in MODEL_FOR_MASKED_LM_MAPPING:
        what = "is an encoder, whose tokens attend to later ones (is_decoder is false)"
    elif kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        what = _unfit(MODEL_FOR_CAUSAL_LM_MAPPING[kind])
    else:
        what = _unfit(MODEL_FOR_MULTIMODAL_LM_MAPPING[kind])
    if what is not None:
        names = ", ".join(config.architectures or []) or kind.__name__
        raise ModelLoadingError(
            f"{name_or_path!r} ({names}, model_type {config.model_type!r}) {what}; choose a "
            "decoder-only language model"
        )
    if own_code:
        logger.info(
            "%s comes with its own code (%s), which is not run: transformers has %s itself",
            *(name_or_path, _code_files(own_code), config.model_type),
        )
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING:
        return AutoModelForCausalLM
    logger.info("%s is a multimodal model; only its text model is used", name_or_path)
    return AutoModelForMultimodalLM


def _unfit(model_class: Any) -> str | None:
    """Say why a model cannot continue a text that is in its cache; None if its forward can."""
    inputs = inspect.signature(model_class.forward).parameters
    needed = [
        name
        for name, given in inputs.items()
        if given.default is given.empty
        and given.kind is given.POSITIONAL_OR_KEYWORD
        and name not in ("self", "input_ids")
    ]
    if needed:
        return f"needs {' and '.join(needed)} beside the text"
    if "input_ids" not in inputs:
        return "does not read text alone"
    if "past_key_values" not in inputs:
        return "has no key-value cache"
    return None


def check_quantization(
    name_or_path: str, config: Any, requested: dict[str, Any] | None, device_map: Any
) -> None:
    """Check that this machine can load a quantised model, before its weights are read.

    Args:
        name_or_path: Hub id or folder.
        config: the model's config, with `quantization_config` if it is quantised.
        requested: `model.model_kwargs.quantization_config`.
        device_map: where the model will be placed.

    Raises:
        ModelLoadingError: with the library to install, or what else is missing.
        ConfigurationError: for a key of `requested` that the quantisation does not read.
    """
    from transformers.quantizers.auto import (
        AutoHfQuantizer,
        AutoQuantizationConfig,
        get_hf_quantizer,
    )

    text = config.get_text_config(decoder=True)
    stored = getattr(config, "quantization_config", None) or getattr(
        text, "quantization_config", None
    )
    if stored is None and requested is None:
        return
    method = _method(stored if stored is not None else requested)
    if method is None:
        raise ModelLoadingError(
            f"the quantization_config of {name_or_path!r} has no quant_method, such as gptq or "
            "bitsandbytes; add it"
        )
    try:
        if stored is not None and not AutoHfQuantizer.supports_quant_method(  # type: ignore[no-untyped-call]
            stored
        ):
            raise ModelLoadingError(
                f"{name_or_path!r} is quantised with {method!r}, which this version of "
                "transformers cannot load; choose a checkpoint in another format"
            )
        if requested is not None:
            parsed = AutoQuantizationConfig.from_dict(requested)
            check_nested_options("quantization_config", requested, vars(parsed))
        get_hf_quantizer(  # type: ignore[no-untyped-call]
            copy.deepcopy(config), requested, device_map, True, {}
        )
    except LOADING_ERRORS as error:
        raise_unless_loading(error)
        # The whole message: the command that installs the library is often in its second line.
        message = " ".join(str(error).split()).rstrip(".")
        missing = getattr(error, "name", None) or _PACKAGES.get(method)
        if missing and "pip install" not in message:
            message += f"; run `pip install {missing}`"
        state = "is quantised" if stored is not None else "cannot be quantised"
        raise ModelLoadingError(f"{name_or_path!r} {state} with {method!r}: {message}") from error


def _method(quantization: Any) -> str | None:
    content = quantization if isinstance(quantization, Mapping) else quantization.to_dict()
    if content.get("load_in_4bit") or content.get("load_in_8bit"):
        return "bitsandbytes"
    method = content.get("quant_method")
    return None if method is None else str(getattr(method, "value", method))


def _unknown(name_or_path: str, content: Mapping[str, Any]) -> str:
    import transformers

    kind = content.get("model_type")
    if kind is None:
        return (
            f"config.json of {name_or_path!r} has no model_type, so it is not the config of a "
            "transformers model; convert the model to the Hugging Face format"
        )
    needs = content.get("transformers_version")
    written = f" (the config was written by {needs})" if needs else ""
    return (
        f"{name_or_path!r} has model_type {kind!r}, which transformers "
        f"{transformers.__version__} does not know{written}; upgrade transformers if a newer "
        "version does"
    )


def _runs_code(name_or_path: str, own_code: Mapping[str, Any]) -> str:
    return (
        f"{name_or_path!r} needs code that comes with it ({_code_files(own_code)}); read it, and "
        "set model.trust_remote_code=true if you trust its author"
    )


def _code_files(own_code: Mapping[str, Any]) -> str:
    return ", ".join(sorted({f"{str(name).rsplit('.', 1)[0]}.py" for name in own_code.values()}))


def max_tokens(config: Any) -> int | None:
    """Return the longest sequence that a config allows; None if it names none."""
    return getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)


def raise_unless_loading(error: BaseException) -> None:
    """Raise an error again that has a category of its own, such as out of memory."""
    if isinstance(error, SahError | torch.OutOfMemoryError):
        raise error
    if category(error) not in ("model_loading", "filesystem", "unknown"):
        raise error


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, with its type where that says more."""
    kind = type(error).__name__
    lines = [line.strip() for line in str(error).strip().splitlines()] or [kind]
    message = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    # Messages such as 'nope' for a KeyError do not say that something is wrong.
    is_bare = isinstance(
        error, LookupError | AttributeError | TypeError | AssertionError | JSONDecodeError
    )
    return f"{kind}: {message}" if is_bare else message
