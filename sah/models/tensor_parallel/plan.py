"""Which weights of a model are split over the processes, by the plan of transformers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sah.errors import ConfigurationError
from sah.models.loading.outline import ModelOutline

COMPARED = frozenset(
    """
    afmoe apertus arcee aria_text axk1 bailing_hybrid beam cohere cohere2 cohere2_moe
    cohere_compass_text cwm deepseek_v2 deepseek_v3 dots1 ernie4_5 ernie4_5_moe exaone4
    exaone_moe flex_olmo flint gemma gemma2 gemma3 gemma3_text gemma4_unified glm glm4
    glm4_moe glm4_moe_lite got_ocr2 gpt_neox granite granite_swa granitemoe granitemoe_swa
    granitemoeshared helium hunyuan_v1_moe hy_v3 hyperclovax internlm3 iquestcoder jais2
    kimi_linear kolibri1 laguna llama llama4 llama4_text mellum mimo_v2_flash minicpm3
    minimax_m2 ministral ministral3 mistral mixtral moss_transcribe_diarize nanochat
    nemotron olmo olmo2 olmo3 olmo_hybrid olmoe phi phi3 phimoe qwen2 qwen2_moe qwen3
    qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next seed_oss smollm3
    solar_open starcoder2 vaultgemma
    """.split()  # noqa: SIM905
)
"""Model types of which a split model has the logits of a whole one (docs/figures/split_types.py).

Of other types it may differ without any error, by what transformers does when it loads them.
"""

# An entry of a plan for a part of an attention module, such as layers.*.self_attn.q_proj.
_IN_ATTENTION = re.compile(r"(.*(?:attn|attention))\.[^.]+")

# Styles of transformers that leave each process the outputs of its own heads, and those that give
# every process the outputs of all heads.
_WITH_ALL_HEADS = {"colwise": "colwise_gather_output", "rowwise": "rowwise_split_input"}

# Styles of parts that are the same in every process, or that gather their outputs themselves.
_UNCHANGED = {
    *_WITH_ALL_HEADS.values(),
    "colwise_rep",
    "local_params",
    "mla_kv_a_proj",
    "replicate",
    "replicated_with_grad_allreduce",
}

# Computed from the cache, which only the first process has.
_OF_CACHED_KEYS = frozenset({"kv_b_proj"})

# An output projection that is not split is whole in every process.
_OUTPUT_STYLES = (None, "rowwise_split_input", "colwise_gather_output")
_OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "dense", "wo", "proj")

_INSTEAD = (
    "set model.tensor_parallel=1, with +model.model_kwargs.device_map=auto where one GPU is too "
    "small"
)


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """How a model is split: transformers' own plan, but attention has all heads in one process.

    All projections are split. The outputs of the query, key and value projections are gathered,
    so that the first process computes attention as it does without a split: budgets, draws,
    densities and evictions are of all heads.
    """

    processes: int
    changes: Mapping[str, str]
    """Entries in place of those of transformers' plan: the style of each part of attention."""
    outputs: tuple[str, ...]
    """The modules that read the output of attention, one for each layer."""

    @classmethod
    def of(
        cls, auto_class: Any, config: Any, processes: int, device: torch.device, name: str
    ) -> "SplitPlan":
        """Plan the split of a model, from its config.

        Args:
            auto_class: the class, or auto class, of transformers that loads it.
            config: the model's config.
            processes: number of processes, at least 2.
            device: cuda, or cpu without limits.
            name: of the model, for messages.

        Raises:
            ConfigurationError: if there are too few GPUs, transformers has no plan for the model,
                or attention cannot have all heads in one process.
            ModelLoadingError: if no model can be made of the config.
        """
        asked = f"model.tensor_parallel={processes}"
        _require_devices(processes, device)
        text = config.get_text_config(decoder=True)
        if config.model_type not in COMPARED:
            raise ConfigurationError(
                f"{asked}: {name!r} has model_type {config.model_type!r}, of which a split model "
                f"was not compared with a whole one or differs from it; {_INSTEAD}"
            )
        if any(getattr(one, "quantization_config", None) is not None for one in (config, text)):
            raise ConfigurationError(f"{asked}: the weights of {name!r} are quantised; {_INSTEAD}")
        model = ModelOutline.of(auto_class, config, torch.bfloat16).model
        plan: dict[str, str] = model.tp_plan or {}
        if not any("*" in key for key in plan):
            raise ConfigurationError(
                f"{asked}: transformers has no tensor-parallel plan for the layers of {name!r} "
                f"({type(model).__name__}); {_INSTEAD}"
            )
        whole = _OF_CACHED_KEYS
        if getattr(text, "num_kv_shared_layers", None):
            # These layers read the keys of another one, which only the first process has.
            whole |= {"k_proj", "v_proj"}
        changes = {}
        parameters = {_generic(key) for key, _ in model.named_parameters()}
        for key, style in plan.items():
            if not _IN_ATTENTION.fullmatch(key):
                continue
            if style in _WITH_ALL_HEADS:
                is_whole = key in parameters or key.rpartition(".")[2] in whole
                changes[key] = "replicate" if is_whole else _WITH_ALL_HEADS[style]
            elif style not in _UNCHANGED:
                raise ConfigurationError(
                    f"{asked}: the plan of transformers for {name!r} splits {key} by {style!r}, "
                    f"after which no process has all heads; {_INSTEAD}"
                )
        final, decoder = plan | changes, set(model.get_decoder().modules())
        outputs = tuple(
            key
            for key, module in model.named_modules()
            if module in decoder
            and _IN_ATTENTION.fullmatch(key)
            and key.rpartition(".")[2] in _OUTPUT_PROJECTIONS
            and final.get(_generic(key)) in _OUTPUT_STYLES
        )
        if len(outputs) != text.num_hidden_layers:
            raise ConfigurationError(
                f"{asked}: only {len(outputs)} of the {text.num_hidden_layers} layers of {name!r} "
                "have attention with an output projection by a known name; layers of another kind "
                f"have states, which every process would need; {_INSTEAD}"
            )
        return cls(processes=processes, changes=changes, outputs=outputs)

    def distributed_config(self) -> Any:
        """Return the argument of `from_pretrained` that splits the model."""
        from transformers.distributed.configuration_utils import DistributedConfig

        return DistributedConfig(tp_size=self.processes, tp_plan=dict(self.changes) or "auto")


def _generic(name: str) -> str:
    """Return a name as plans have it, with * for the numbers of layers."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


def _require_devices(processes: int, device: torch.device) -> None:
    if device.type != "cuda":
        return
    visible = torch.cuda.device_count()
    if visible < processes:
        raise ConfigurationError(
            f"model.tensor_parallel={processes} needs {processes} GPUs, but this process sees "
            f"{visible}; set hydra.launcher.gpus_per_job={processes} in a sweep, or list more in "
            "CUDA_VISIBLE_DEVICES"
        )
