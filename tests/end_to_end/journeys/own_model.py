"""Your own model in a notebook; paste the cells, or open this file as one (Jupytext, VS Code)."""

# %% Any causal language model of transformers; here a random one, saved as yours would be.
import copy

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import sah

loaded = sah.compose("model=tiny").model.load()
loaded.model.save_pretrained("my_model")
loaded.prompts.tokenizer.save_pretrained("my_model")

model = AutoModelForCausalLM.from_pretrained("my_model")
tokenizer = AutoTokenizer.from_pretrained("my_model")
inputs = tokenizer("The grass is green. The sky is blue. " * 20, return_tensors="pt")
inputs.pop("token_type_ids", None)
settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 1}

# %% The prompt is read with the model's own attention, new tokens are decoded under Quest.
dense = model.generate(**inputs, **settings)
with sah.attach(model, "quest", fraction=0.05) as session:
    model.generate(**inputs, **settings)
print(f"density {session.density():.2f}, rows read {session.rows_read():.2f}")
# > density 0.68, rows read 0.69

# %% With its whole budget it answers as dense attention does, and so does the model afterwards.
with sah.attach(model, "quest", fraction=1.0) as session:
    whole = model.generate(**inputs, **settings)
print(session.density(), torch.equal(whole, dense))
print(torch.equal(model.generate(**inputs, **settings), dense))
# > 1.0 True
# > True

# %% Keys evicted after the context, a question read from what is left.
question = tokenizer("What is green?", return_tensors="pt", add_special_tokens=False).input_ids
with sah.attach(model, "snapkv", "evict.snapkv.window=16", fraction=0.2) as session:
    cache = model(inputs.input_ids).past_key_values
    asked = torch.cat([inputs.input_ids, question], dim=1)
    model.generate(asked, past_key_values=copy.deepcopy(cache), **settings)
print(f"resident {session.resident():.2f} of the dense cache")
# > resident 0.20 of the dense cache

# %% A mistake is an exception that says what to change.
try:
    sah.run("model=hf", "model.name_or_path=my_model", "benchmark=mock", "attention=qest")
except sah.errors.ConfigurationError as error:
    print(error)
# > Could not find 'attention/qest': did you mean quest?...

# %% The same model measured in experiments: files, resume and checks of the command line.
for attention in ("dense", "quest", "streaming_llm"):
    sah.run("model=hf", "model.name_or_path=my_model", "benchmark=mock", f"attention={attention}")
frame = sah.results("outputs")
for row in frame.select("model", "attention", "n", "density").rows():
    print(*row)
# > my_model dense 5 1.0
# > my_model quest 5 0.70...
# > my_model streaming_llm 5 0.52...

# %% One row for each answer.
print(sah.examples("outputs", where="attention=quest").height)
# > 5
