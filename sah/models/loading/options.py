"""Options for transformers in `model_kwargs` and `tokenizer_kwargs`: passed on, or refused by name.

transformers ignores most options that it does not know. Here every option is either read by
transformers or refused with the nearest name that is.
"""

import inspect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from sah.errors import ConfigurationError

LOADER_OPTIONS = frozenset(
    {
        "attn_implementation",
        "code_revision",
        "device_map",
        "disable_mmap",
        "experts_implementation",
        "fusion_config",
        "kernel_config",
        "key_mapping",
        "max_memory",
        "offload_buffers",
        "offload_folder",
        "quantization_config",
        "use_kernels",
        "use_safetensors",
        "variant",
    }
)
"""Options of `from_pretrained` that are passed on; every other key overrides the model's config."""

_ATTENTIONS = (
    "eager",
    "sdpa",
    "flex_attention",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
)

_FOLDER = "set model.name_or_path to the folder that holds the files"
_OWN_CACHE = "set the environment variable HF_HUB_CACHE"
_OWN_TOKEN = (
    "set the environment variable HF_TOKEN or run `hf auth login`, since options are stored with "
    "the results"
)
_SPLIT = (
    "set model.tensor_parallel=2 to split each layer over 2 GPUs, or "
    "model.model_kwargs.device_map=auto to spread whole layers over the GPUs"
)

# Options that both kinds of `from_pretrained` take, but that SAH sets itself or does not support.
_ELSEWHERE = {
    "revision": "set model.revision",
    "trust_remote_code": "set model.trust_remote_code",
    "local_files_only": "set the environment variable HF_HUB_OFFLINE=1",
    "cache_dir": _OWN_CACHE,
    "token": _OWN_TOKEN,
    "use_auth_token": _OWN_TOKEN,
    "proxies": "set the environment variable HTTPS_PROXY",
    "force_download": "run `hf download --force-download`",
    "subfolder": _FOLDER,
    "config": _FOLDER,
    "name_or_path": "set model.name_or_path",
    "gguf_file": (
        "GGUF files are not loaded; load the file once with transformers "
        "(from_pretrained(FOLDER, gguf_file=FILE)) and write it with save_pretrained"
    ),
}

_MODEL_ELSEWHERE = _ELSEWHERE | {
    "dtype": "set model.dtype",
    "torch_dtype": "set model.dtype",
    "use_cache": "the cache is always used",
    "state_dict": _FOLDER,
    "model_type": "config.json says what the weights are",
    "tie_word_embeddings": "config.json says whether the weights are tied",
    "output_loading_info": "it is always read",
    "ignore_mismatched_sizes": "tensors of another shape would be replaced by random values",
    "weights_only": "unpickling anything but tensors can run code",
    "allow_all_kernels": "it runs code from the Hub",
    "generation_config": "set generation.KEY",
    "adapter_kwargs": "merge the adapter into its base model",
    "adapter_name": "merge the adapter into its base model",
    "load_in_4bit": "set model.model_kwargs.quantization_config.load_in_4bit",
    "load_in_8bit": "set model.model_kwargs.quantization_config.load_in_8bit",
    "use_flash_attention_2": "set model.model_kwargs.attn_implementation=flash_attention_2",
    "distributed_config": _SPLIT,
    "device_mesh": _SPLIT,
    "tp_plan": _SPLIT,
    "tp_size": _SPLIT,
}

# Fields that every config has and that do not change what a causal language model computes.
_WITHOUT_EFFECT = frozenset(
    {
        "architectures",
        "chunk_size_feed_forward",
        "from_flax",
        "from_tf",
        "id2label",
        "is_encoder_decoder",
        "label2id",
        "low_cpu_mem_usage",
        "mirror",
        "num_labels",
        "offload_state_dict",
        "output_attentions",
        "output_hidden_states",
        "problem_type",
        "return_dict",
        "transformers_version",
    }
)

_TOKENIZER_ELSEWHERE = _ELSEWHERE | {
    "use_fast": "transformers chooses the tokenizer's implementation itself",
    "from_slow": "transformers chooses the tokenizer's implementation itself",
    "enable_thinking": "set model.template_kwargs.enable_thinking",
    "add_special_tokens": "set model.tokenizer_kwargs.add_bos_token",
    "tokenizer_file": _FOLDER,
    "vocab_file": _FOLDER,
    "merges_file": _FOLDER,
    "vocab": _FOLDER,
    "merges": _FOLDER,
}

# What PreTrainedTokenizerBase and its backends read from their **kwargs.
_TOKENIZER_OPTIONS = frozenset(
    {
        "add_bos_token",
        "add_eos_token",
        "additional_special_tokens",
        "chat_template",
        "clean_up_tokenization_spaces",
        "code_revision",
        "extra_special_tokens",
        "fix_mistral_regex",
        "model_input_names",
        "model_max_length",
        "padding_side",
        "split_special_tokens",
        "tokenizer_type",
        "truncation_side",
        "verbose",
    }
)


def split(model_kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of `from_pretrained`, and the values that replace the config's."""
    options = {name: value for name, value in model_kwargs.items() if name in LOADER_OPTIONS}
    overrides = {name: value for name, value in model_kwargs.items() if name not in options}
    return options, overrides


def check_model_kwargs(options: Mapping[str, Any], *, trust_remote_code: bool) -> None:
    """Check the names in `model.model_kwargs` that need no model.

    Raises:
        ValueError: for an option that is set elsewhere, has no effect or is not supported.
    """
    _refuse("model_kwargs", options, _MODEL_ELSEWHERE)
    for name in options:
        if name in _WITHOUT_EFFECT or name.startswith("_"):
            raise ValueError(
                f"model.model_kwargs.{name} does not change what the model computes; leave it out"
            )
    quantization = options.get("quantization_config", {})
    if not isinstance(quantization, Mapping):
        raise ValueError(
            f"model.model_kwargs.quantization_config must be a mapping, got {quantization!r}"
        )
    given = options.get("attn_implementation")
    for attention in given.values() if isinstance(given, Mapping) else [given]:
        from_hub = trust_remote_code and "/" in str(attention)
        if attention is not None and attention not in _ATTENTIONS and not from_hub:
            raise ValueError(
                f"model.model_kwargs.attn_implementation={attention!r} is not one of "
                f"{', '.join(_ATTENTIONS)}; a kernel from the Hub is code and needs "
                "model.trust_remote_code=true"
            )


def check_tensor_parallel(
    processes: int | None, device: str, model_kwargs: Mapping[str, Any]
) -> None:
    """Check `model.tensor_parallel` against the options that also place weights.

    Raises:
        ValueError: if it is below 1, or does not go together with one of them.
    """
    if processes is not None and processes < 1:
        raise ValueError(
            f"model.tensor_parallel must be at least 1, or null for 1, got {processes}"
        )
    if processes in (None, 1):
        return
    if device != "auto":
        raise ValueError(
            f"model.tensor_parallel={processes} uses the first {processes} visible GPUs, but "
            f"model.device={device!r} names one device; leave model.device=auto, and choose GPUs "
            "with CUDA_VISIBLE_DEVICES"
        )
    for name in ("device_map", "max_memory", "offload_folder", "quantization_config"):
        if name in model_kwargs:
            raise ValueError(
                f"model.tensor_parallel={processes} places the weights of each layer in "
                f"{processes} processes, which does not go together with model.model_kwargs.{name};"
                " leave one of them out"
            )


def check_tokenizer_kwargs(options: Mapping[str, Any]) -> None:
    """Check the names in `model.tokenizer_kwargs` that need no tokenizer.

    Raises:
        ValueError: for an option that is set elsewhere or that transformers ignores.
    """
    _refuse("tokenizer_kwargs", options, _TOKENIZER_ELSEWHERE)


def _refuse(field: str, options: Iterable[str], elsewhere: Mapping[str, str]) -> None:
    for name in options:
        if name in elsewhere:
            raise ValueError(f"model.{field}.{name} is not supported: {elsewhere[name]}")


def check_overrides(
    config: Any,
    overrides: Mapping[str, Any],
    unused: Collection[str],
    path: str = "model.model_kwargs",
) -> None:
    """Check that a config has what `model.model_kwargs` overrides.

    Args:
        config: the config with the overrides applied.
        overrides: the options that are not in LOADER_OPTIONS.
        unused: the names that transformers found no place for.
        path: where the overrides are configured, for messages.

    Raises:
        ConfigurationError: naming the option and the nearest name that the config has.
    """
    if is_dataclass(config) and type(config).__module__.startswith("transformers."):
        # Any other key of config.json, or of a nested config, is an attribute that nothing reads.
        unused = set(unused) | (set(overrides) - _fields(config))
    has_rope = hasattr(config, "rope_parameters")
    for name, value in overrides.items():
        if has_rope and name.startswith("rope_") and name != "rope_parameters":
            raise ConfigurationError(
                f"{path}.{name} is not read; set {path}.rope_parameters, which replaces all rotary "
                "parameters of config.json"
            )
        if name in unused:
            raise ConfigurationError(_unknown_override(path, name, config))
        nested = getattr(config, name)
        if isinstance(value, Mapping) and is_dataclass(nested):
            check_overrides(nested, value, (), f"{path}.{name}")
    if has_rope and "rope_parameters" in overrides:
        _check_rope(config, overrides["rope_parameters"], f"{path}.rope_parameters")


def check_nested_options(option: str, given: Mapping[str, Any], known: Iterable[str]) -> None:
    """Check the keys of an option that is a mapping.

    Raises:
        ConfigurationError: naming the nearest key that is read.
    """
    names = {name.lstrip("_") for name in known} | {"quant_method"}
    for name in given:
        if name not in names:
            raise ConfigurationError(
                f"model.model_kwargs.{option}.{name} is not read; {_nearest(name, names)}"
            )


def _fields(config: Any) -> set[str]:
    """Return the names that a config declares, which its model may read."""
    return {field.name for field in fields(config)} | set(config.attribute_map)


def _unknown_override(path: str, name: str, config: Any) -> str:
    from transformers import GenerationConfig

    if name in GenerationConfig().to_dict():  # type: ignore[no-untyped-call]
        return f"{path}.{name} is not read when a model is loaded; answers follow generation.*"
    fields_of_config = _fields(config) if is_dataclass(config) else set(vars(config))
    known = (LOADER_OPTIONS | fields_of_config) - _WITHOUT_EFFECT
    return (
        f"{path}.{name} is neither an option of from_pretrained nor in the config of a "
        f"{config.model_type} model; {_nearest(name, known)}"
    )


def _check_rope(config: Any, given: Any, path: str) -> None:
    """Check rotary parameters, which replace the config's without a check by transformers."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS, RopeParameters

    if not isinstance(given, Mapping):
        raise ConfigurationError(f"{path} must be a mapping, got {given!r}")
    known = set(RopeParameters.__annotations__)
    by_layer_type = config.nested_rope_parameter_keys(given)
    parts = {f"{path}.{key}": given[key] for key in by_layer_type} or {path: given}
    for place, part in parts.items():
        if part is None:
            continue
        for name in part:
            if name not in known:
                raise ConfigurationError(f"{place}.{name} is not read; {_nearest(name, known)}")
        rope_type = part.get("rope_type")
        needed = ["rope_type", "rope_theta"]
        if rope_type in ("llama3", "longrope", "yarn"):
            # By default the length of the extended context, which is never what is meant.
            needed.append("original_max_position_embeddings")
        for name in needed:
            if part.get(name) is None:
                raise ConfigurationError(
                    f"{place} lacks {name}; it replaces all rotary parameters of config.json"
                )
        types = {"default", *ROPE_INIT_FUNCTIONS}
        if str(rope_type) not in types:
            raise ConfigurationError(
                f"{place}.rope_type={rope_type!r} is not one of {', '.join(sorted(types))}"
            )
    try:
        config.validate_rope()
    except (KeyError, ValueError) as error:
        raise ConfigurationError(f"{path}: {error.args[0]}") from error


def check_read_by_tokenizer(tokenizer: Any, options: Mapping[str, Any]) -> None:
    """Check that the loaded tokenizer reads what `model.tokenizer_kwargs` sets.

    Raises:
        ConfigurationError: naming the option and the nearest one that is read.
    """
    kind = type(tokenizer)
    if not kind.__module__.startswith("transformers."):
        # Code that comes with the model may read any name from its **kwargs.
        return
    named = {
        parameter.name
        for parent in kind.__mro__
        for parameter in inspect.signature(
            vars(parent).get("__init__", object.__init__)
        ).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    } - {"self"}
    known = _TOKENIZER_OPTIONS | named | set(kind.SPECIAL_TOKENS_ATTRIBUTES)
    for name in options:
        if name in known:
            continue
        if name in _template_variables(tokenizer):
            raise ConfigurationError(
                f"model.tokenizer_kwargs.{name} is not read by the tokenizer but by its chat "
                f"template; set model.template_kwargs.{name}"
            )
        raise ConfigurationError(
            f"model.tokenizer_kwargs.{name} is not read by {kind.__name__}; {_nearest(name, known)}"
        )


def _template_variables(tokenizer: Any) -> set[str]:
    """Return the variables that the chat template reads; none if it cannot be parsed."""
    from jinja2 import Environment, TemplateSyntaxError, meta

    template = tokenizer.chat_template
    texts = template.values() if isinstance(template, Mapping) else [template or ""]
    # The block that transformers adds to Jinja.
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return set().union(
            *(meta.find_undeclared_variables(environment.parse(text)) for text in texts)
        )
    except TemplateSyntaxError:
        return set()


def _nearest(name: str, known: Iterable[str]) -> str:
    names = sorted(name for name in known if not name.startswith("_"))
    near = get_close_matches(name, names, n=1)
    return f"did you mean {near[0]}?" if near else f"the known ones are {', '.join(names)}"
