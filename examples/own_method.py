"""A new method in one file: attached to a model, measured in an experiment, swept.

    python examples/own_method.py                              # SmolLM2, two samples of RULER
    python examples/own_method.py model=tiny benchmark=mock    # in seconds

Results are written below outputs/, as those of `python run.py` are. The preset and its masker are
yamls in examples/conf. The command line finds them, too, where Python finds this file:

    PYTHONPATH=examples sah run -m --config-dir examples/conf attention=dense,large_values
"""

# B batch, H query heads, G key-value heads, Q queries, K keys

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

import sah
from sah.attention import AttentionInputs, SparseAttention, TopKMasker
from sah.maskers.local import Local
from sah.maskers.sink import Sink

FOLDER = Path(__file__).resolve().parent
PROMPT = "The grass is green. The sky is blue. The sun is yellow. Here we go. " * 12


@dataclass(frozen=True, kw_only=True)
class LargeValues(TopKMasker):
    """Add the candidates with the largest values, by L2 norm."""

    def scores(self, inputs: AttentionInputs) -> Float[Tensor, "B H Q K"]:
        norms = inputs.value.float().norm(dim=-1)  # B G K
        per_head = norms.repeat_interleave(inputs.group_size, dim=1)  # B H K
        return per_head[:, :, None].expand(inputs.query.shape[:3] + norms.shape[-1:])


def attach_it(*experiment: str) -> None:
    """Run the method in a transformers model, and print what it read."""
    loaded = sah.compose(*experiment).model.load()
    model, tokenizer = loaded.model, loaded.prompts.tokenizer
    attention = SparseAttention(
        name="large_values",
        maskers={
            "sink": Sink(tokens=4),
            "local": Local(tokens=16),
            "large_values": LargeValues(fraction=0.1),
        },
    )
    inputs = tokenizer(PROMPT, return_tensors="pt")
    with sah.attach(model, attention) as session:
        output = model.generate(
            inputs.input_ids,
            attention_mask=torch.ones_like(inputs.input_ids),
            max_new_tokens=12,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
    print(repr(tokenizer.decode(output[0, inputs.input_ids.shape[1] :])))
    print(f"density {session.density():.3f}, rows read {session.rows_read():.3f}")


def sweep_it(*experiment: str) -> None:
    """Measure the method at several budgets, beside dense attention, and print the scores."""
    sys.path.insert(0, str(FOLDER))  # where `_target_: own_method.LargeValues` is found
    sah.run(*experiment, "attention=dense")
    for fraction in (0.05, 0.2):
        sah.run(
            *experiment,
            "attention=large_values",
            f"sparse_attention.maskers.large_values.fraction={fraction}",
            config_dir=FOLDER / "conf",
        )
    frame = sah.results("outputs", where={"attention": ["dense", "large_values"]})
    for attention, score, density in frame.select("attention", "score", "density").rows():
        print(f"{attention} {score:.3f} {density:.3f}")


if __name__ == "__main__":
    chosen = sys.argv[1:] or ("benchmark.samples=2", "benchmark.context_tokens=512")
    attach_it(*chosen)
    sweep_it(*chosen)
