"""A model without weights has the sizes of the loaded one."""

import pytest
import torch

from sah.errors import ModelLoadingError
from sah.models.hub import HubModel
from sah.models.tiny import TinyModel


def test_sizes_are_those_of_the_loaded_model():
    source = TinyModel(layers=3, key_value_heads=1, dtype="float32")
    outline, loaded = source.outline(torch.float32), source.load()
    weights, expected = (
        sum(one.nbytes for one in made.model.parameters()) for made in (outline, loaded)
    )
    assert weights == expected
    assert outline.cache_bytes(1000) == loaded.cache_bytes(1000)


def test_a_saved_model_is_outlined_from_its_config_alone(tmp_path):
    TinyModel().outline(torch.bfloat16).model.config.save_pretrained(tmp_path)
    outline = HubModel(name="mine", name_or_path=str(tmp_path)).outline(torch.bfloat16)
    assert outline.cache_bytes(10) == TinyModel().outline(torch.bfloat16).cache_bytes(10)


def test_a_model_whose_size_is_not_in_its_config_is_refused(tmp_path):
    with pytest.raises(ModelLoadingError, match="cannot read config"):
        HubModel(name="gone", name_or_path="org/gone").outline(torch.bfloat16)
    config = TinyModel().outline(torch.bfloat16).model.config
    config.quantization_config = {"quant_method": "fp8"}
    config.save_pretrained(tmp_path)
    with pytest.raises(ModelLoadingError, match="the weights are quantised"):
        HubModel(name="small", name_or_path=str(tmp_path)).outline(torch.bfloat16)
