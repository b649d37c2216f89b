# A method of your own, outside of SAH: one class and two yamls; attached, measured, swept, compared.

cat > large_values.py <<'END'
from dataclasses import dataclass

from sah.attention import TopKMasker


@dataclass(frozen=True, kw_only=True)
class LargeValues(TopKMasker):
    """Add the candidates with the largest values, by L2 norm."""

    def scores(self, inputs):
        norms = inputs.value.float().norm(dim=-1)  # B G K
        per_head = norms.repeat_interleave(inputs.group_size, dim=1)  # B H K
        return per_head[:, :, None].expand(inputs.query.shape[:3] + norms.shape[-1:])
END
mkdir -p mine/masker mine/sparse_attention
cat > mine/masker/large_values.yaml <<'END'
# The keys with the largest values, by L2 norm.
_target_: large_values.LargeValues
tokens: null
# Keys to add, as a share of the query's visible keys.
fraction: 0.1
share: head
unit: 1
every: 1
END
cat > mine/sparse_attention/large_values.yaml <<'END'
# Sink, window, and the keys with the largest values.
defaults:
  - /masker@maskers.sink: sink
  - /masker@maskers.local: local
  - /masker@maskers.large_values: large_values
  - _self_

_target_: sah.attention.SparseAttention
name: large_values
dense_layers: []
layers: null
END

# Attached to a model of transformers.
cat > try_it.py <<'END'
import torch

import sah

loaded = sah.compose("model=tiny").model.load()
prompt = torch.arange(300)[None] % 390
with sah.attach(loaded.model, "large_values", fraction=0.05, config_dir="mine") as session:
    loaded.model.generate(prompt, max_new_tokens=8, do_sample=False, pad_token_id=1)
print(f"density {session.density():.2f}")
END
python try_it.py
# > density 0.28

# The class is found where Python finds modules, and the yamls where --config-dir says.
sah run --config-dir mine model=tiny benchmark=mock attention=large_values || echo "exit status $?"
# > ...'large_values.LargeValues' is not a class that can be imported...
# > ...put its folder on PYTHONPATH
# > exit status 1
export PYTHONPATH=$PWD:${PYTHONPATH:-}

sah help large_values --config-dir mine
# > attention=large_values mine/sparse_attention/large_values.yaml
# > Add the candidates with the largest values, by L2 norm.

# Measured in one experiment.
sah run --config-dir mine model=induction benchmark.samples=6 benchmark.context_tokens=512 \
    attention=large_values
# > induction large_values ruler niah_single_1
# > density ...

# The folder may also be a search path of Hydra; the result is read, not computed.
sah run 'hydra.searchpath=[mine]' model=induction benchmark.samples=6 \
    benchmark.context_tokens=512 attention=large_values
# > induction large_values ruler niah_single_1

# Swept over its budgets, beside dense attention and another method.
sah run -m --config-dir mine hydra/launcher=basic model=induction benchmark.samples=6 \
    benchmark.context_tokens=512 attention=dense,sparse
sah run -m --config-dir mine hydra/launcher=basic model=induction benchmark.samples=6 \
    benchmark.context_tokens=512 attention=large_values \
    sparse_attention.maskers.large_values.fraction=0.05,0.1,0.3
# > ... 3 experiments: 1 finished already, 0 duplicates, 2 to run
# > 2 done, 1 finished

sah compare
# > large_values ...fraction=0.05 ...
# > large_values ...fraction=0.1 ...
# > large_values ...fraction=0.3 ...
# > sparse ...
