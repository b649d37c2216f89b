"""Layers that accelerate places on several devices: here a CPU and the disk."""

import pytest
import torch

from sah.attention.session import AttentionSession
from sah.models.generation import Generation
from sah.models.hub import HubModel
from sah.models.tiny import TinyModel

PARTS = ("model.embed_tokens", "model.rotary_emb", "model.norm", "lm_head")
PLACES = dict.fromkeys((*PARTS, "model.layers.0"), "cpu") | {"model.layers.1": "disk"}


@pytest.mark.parametrize("name", ["dense", "quest", "random_sampling"])
def test_answers_with_a_layer_on_disk_are_those_in_memory(name, preset, tmp_path):
    saved = TinyModel().load()
    saved.model.save_pretrained(tmp_path / "model")
    saved.prompts.tokenizer.save_pretrained(tmp_path / "model")
    options = {"device_map": PLACES, "offload_folder": str(tmp_path / "offloaded")}
    tokens = []
    for model_kwargs in ({}, options):
        model = HubModel(
            name="tiny", name_or_path=str(tmp_path / "model"), model_kwargs=model_kwargs
        ).load()
        session = AttentionSession(preset(name), seed=0)
        context = model.prefill(range(5, 69), reserve_tokens=10)
        session.begin_context(context.length)
        session.begin_example("one")
        answer = model.answer(
            context,
            [70, 71],
            session=session,
            sampler=Generation().sampler(0, "one", torch.device("cpu")),
            max_new_tokens=4,
        )
        tokens.append((answer.token_ids, session.keys_read()))
    assert model.model.hf_device_map["model.layers.1"] == "disk"
    assert tokens[0] == tokens[1]
