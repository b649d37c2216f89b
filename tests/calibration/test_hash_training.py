import pytest
import torch
from safetensors.torch import save_file

from sah.attention import AttentionInputs, AttentionMask, Visibility
from sah.calibration.hash_networks import trained_networks
from sah.calibration.hash_training import HashTraining, LayerSample, train, untrained
from sah.calibration.passages import Passage
from sah.calibration.recall import measure_recall
from sah.errors import ConfigurationError
from sah.maskers.hash_attention import HashAttention, HashNetworks

HEADS, GROUPS, DIM, TOKENS = 4, 2, 8, 300


def sample(seed: int) -> LayerSample:
    """Queries and keys whose channels differ in mean and spread, as in real models."""
    generator = torch.Generator().manual_seed(seed)
    offset, spread = torch.linspace(-3, 3, DIM), torch.logspace(-1, 1, DIM)

    def normal(heads: int) -> torch.Tensor:
        return torch.randn(heads, TOKENS, DIM, generator=generator) * spread + offset

    return LayerSample(
        query=normal(HEADS), key=normal(GROUPS), scaling=DIM**-0.5, question_start=TOKENS - 30
    )


SAMPLES = [sample(seed) for seed in range(4)]
TRAINING = HashTraining(bits=16, hidden=8, steps=60, queries=32, positives=20)


@pytest.fixture(scope="module")
def networks() -> HashNetworks:
    return train(SAMPLES[:3], TRAINING, layer=0)


def test_training_finds_more_of_the_best_keys_on_held_out_text(networks):
    before = measure_recall(untrained(SAMPLES[:3], TRAINING, layer=0), SAMPLES[3:])
    after = measure_recall(networks, SAMPLES[3:])
    assert after.keys > before.keys + 0.2
    assert after.mass > before.mass + 0.2


def test_networks_depend_on_seed_and_layer(networks):
    again = train(SAMPLES[:3], TRAINING, layer=0)
    other = train(SAMPLES[:3], TRAINING, layer=1)
    assert again.query[0][0].equal(networks.query[0][0])
    assert not other.query[0][0].equal(networks.query[0][0])


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    train(SAMPLES[:1], HashTraining(bits=4, hidden=4, steps=1), layer=0)
    assert torch.rand(2).equal(expected)


def test_recall_is_one_for_signatures_that_rank_as_scores_do():
    """One channel, one bit: the sign of the score, which is positive for a tenth of the keys."""
    key = torch.full((1, 200, 1), -1.0)
    key[:, 100:120] = 1.0
    one = LayerSample(query=torch.ones(1, 200, 1), key=key, scaling=1.0, question_start=195)
    exact = [(torch.ones(1, 1, 1), torch.zeros(1, 1))]
    opposite = [(-torch.ones(1, 1, 1), torch.zeros(1, 1))]
    found = measure_recall(HashNetworks(query=exact, key=exact), [one])
    assert (found.keys, found.mass) == (1.0, pytest.approx(1.0))
    assert measure_recall(HashNetworks(query=exact, key=opposite), [one]).keys == 0.0


@pytest.mark.parametrize(
    "wrong", [{"bits": 0}, {"learning_rate": 0}, {"steps": 1.5}, {"positive_weight": float("nan")}]
)
def test_invalid_settings_are_named(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HashTraining(**wrong)


@pytest.fixture(scope="module")
def long_passages() -> list[Passage]:
    generator = torch.Generator().manual_seed(1)
    ids = [torch.randint(300, (200,), generator=generator).tolist() for _ in range(3)]
    return [Passage(token_ids=one, question_start=180) for one in ids]


def test_the_masker_reads_the_trained_networks(tiny, long_passages, tmp_path):
    training = HashTraining(bits=12, hidden=8, steps=3)
    tensors = trained_networks(tiny, long_passages, training)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    file = tmp_path / "networks.safetensors"
    save_file(tensors, file)
    config = tiny.model.config
    for layer in range(config.num_hidden_layers):
        inputs = AttentionInputs(
            query=torch.randn(1, config.num_attention_heads, 1, 16),
            key=torch.randn(1, config.num_key_value_heads, 50, 16),
            value=torch.randn(1, config.num_key_value_heads, 50, 16),
            visibility=Visibility(torch.ones(1, 1, 1, 50, dtype=torch.bool)),
            scaling=0.25,
            layer_idx=layer,
        )
        mask = HashAttention(weights=str(file), tokens=7)(inputs, AttentionMask.empty(inputs))
        assert mask.selected.sum(-1).eq(7).all()


def test_training_in_groups_of_layers_equals_training_all_at_once(tiny, long_passages, monkeypatch):
    training = HashTraining(bits=8, hidden=4, steps=2)
    at_once = trained_networks(tiny, long_passages, training)
    monkeypatch.setattr("sah.calibration.hash_networks._CAPTURED_BYTES", 1)
    one_by_one = trained_networks(tiny, long_passages, training)
    assert at_once.keys() == one_by_one.keys()
    assert all(at_once[name].equal(one_by_one[name]) for name in at_once)


@pytest.mark.parametrize(("count", "length", "message"), [(1, 200, "two passages"), (3, 99, "136")])
def test_too_little_text_is_refused(tiny, long_passages, count, length, message):
    short = [
        Passage(token_ids=passage.token_ids[:length], question_start=length)
        for passage in long_passages[:count]
    ]
    with pytest.raises(ConfigurationError, match=message):
        trained_networks(tiny, short, HashTraining(steps=1))
