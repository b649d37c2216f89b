"""The tiny model is reproducible, and sensitive to keys that attention leaves out."""

import pytest
import torch

from sah.models.language_model import LanguageModel
from sah.models.tiny import TinyModel


def test_weights_depend_on_the_seed_and_not_on_the_global_generator(
    tiny: LanguageModel,
) -> None:
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = TinyModel().load().model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    for name, weight in tiny.model.state_dict().items():
        assert torch.equal(again[name], weight)


def test_different_seeds_give_different_weights(tiny: LanguageModel) -> None:
    other = TinyModel(weight_seed=1).load().model.state_dict()
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(other[name], tiny.model.state_dict()[name])


@pytest.mark.parametrize("position", [0, 20, 38])
def test_every_token_of_the_context_matters_to_the_next_one(
    position: int, tiny: LanguageModel
) -> None:
    ids = torch.arange(10, 50)[None]
    changed = ids.clone()
    changed[0, position] += 200
    with torch.inference_mode():
        one, other = (tiny.model(input_ids=x).logits[0, -1] for x in (ids, changed))
    assert (one - other).abs().max() > 0.01


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="heads=5 is not a multiple of key_value_heads=2"):
        TinyModel(heads=5)
