"""Finding a model's files: in a folder, in the Hub's cache, or on the Hub."""

import functools
from pathlib import Path

from sah.content import is_reachable
from sah.errors import ModelNotFound


def find_config(name_or_path: str, revision: str | None, cached_revision: str) -> bool:
    """Look for a model's config; return whether to load without the network.

    Fails within seconds, where transformers would retry for minutes.

    Args:
        name_or_path: Hub id or folder.
        revision: as configured, for messages; None means main.
        cached_revision: the revision, or a commit of it that is cached.

    Raises:
        ModelNotFound: if the config is neither in a folder, nor cached, nor downloadable.
    """
    from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    folder = Path(name_or_path)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFound(
                f"model.name_or_path={name_or_path!r} is a folder without config.json"
                f"{_other_format(folder)}; give one that `hf download` or `save_pretrained` "
                "wrote"
            )
        return True
    if folder.is_file():
        raise ModelNotFound(
            f"model.name_or_path={name_or_path!r} is a file; give the folder that holds "
            "config.json, the tokenizer and the weights"
        )
    offline = constants.HF_HUB_OFFLINE or not is_reachable(constants.ENDPOINT)
    try:
        cached = try_to_load_from_cache(name_or_path, "config.json", revision=cached_revision)
        if offline and not isinstance(cached, str):
            state = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "it is unreachable"
            raise ModelNotFound(
                f"config.json of {name_or_path!r} (revision {revision or 'main'}) is "
                f"not in the cache {constants.HF_HUB_CACHE} and cannot be fetched from "
                f"{constants.ENDPOINT} ({state}); {how_to_get(name_or_path)}"
            )
        if not offline:
            hf_hub_download(name_or_path, "config.json", revision=cached_revision)
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        raise ModelNotFound(
            f"{name_or_path!r} cannot be fetched from {constants.ENDPOINT}: "
            f"{str(error).strip().splitlines()[0]}; {how_to_get(name_or_path)}"
        ) from error
    return bool(offline)


@functools.cache
def max_tokens_on_disk(name_or_path: str, revision: str) -> int | None:
    """Return the longest sequence of a model whose config is on this machine, else None."""
    from transformers import AutoConfig

    from sah.models.loading.architecture import LOADING_ERRORS, max_tokens

    try:
        # Explicitly False; otherwise transformers asks on the terminal whether to run the code.
        config = AutoConfig.from_pretrained(
            name_or_path, revision=revision, local_files_only=True, trust_remote_code=False
        )
    except LOADING_ERRORS:
        return None
    return max_tokens(config)


def how_to_get(name: str) -> str:
    """Say how to get the files of a model: the end of a message."""
    if Path(name).is_dir():
        return "set model.name_or_path to a folder that holds the whole model"
    return (
        f"run `hf download {name}` on a machine with a network, or set model.name_or_path to a "
        "folder that holds the model"
    )


# Files of formats without config.json, and what a folder with them holds.
_OTHER_FORMATS = {
    "adapter_config.json": "a LoRA adapter: merge it into its base model with peft",
    "model_index.json": "a diffusers pipeline",
    "params.json": "weights in their author's own format: convert them to the Hugging Face format",
    "*.gguf": "a GGUF file: load it once with transformers, and write it with save_pretrained",
    "*.onnx": "an ONNX model",
    "*.nemo": "a NeMo model: convert it to the Hugging Face format",
}


def _other_format(folder: Path) -> str:
    """Say what a folder without config.json holds instead, where its files tell."""
    for pattern, what in _OTHER_FORMATS.items():
        found = next(folder.glob(pattern), None)
        if found is not None:
            return f" but with {found.name} ({what})"
    return ""
