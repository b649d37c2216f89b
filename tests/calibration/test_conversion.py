import pickle

import pytest
import torch

from sah.calibration.conversion import converted_networks
from sah.errors import ConfigurationError
from sah.maskers.hash_attention import HashNetworks

HEADS, GROUPS, SIZES = 4, 2, (16, 12, 10, 8)


@pytest.fixture(scope="module")
def modules():
    """Networks like the authors': one torch module per head, for each layer and kind."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {
            (layer, kind): [network() for _ in range(HEADS)] for layer in (0, 1) for kind in "qk"
        }


def network():
    first, second, third, bits = SIZES
    linear = torch.nn.Linear
    silu = torch.nn.SiLU
    return torch.nn.Sequential(
        linear(first, second), silu(), linear(second, third), silu(), linear(third, bits)
    )


@pytest.fixture(scope="module")
def state_dict(modules):
    return {
        f"{layer}.learning_to_hash_transformation_{kind}.{head}.{name}": tensor
        for (layer, kind), heads in modules.items()
        for head, module in enumerate(heads)
        for name, tensor in module.state_dict().items()
    }


@pytest.fixture(scope="module")
def matrices(modules):
    def of(layer, kind, part):
        maps = [[module[number] for module in modules[layer, kind]] for number in (0, 2, 4)]
        if part == "weight":
            return [torch.stack([linear.weight.detach().T for linear in heads]) for heads in maps]
        return [torch.stack([linear.bias.detach() for linear in heads]) for heads in maps]

    return {
        layer: {
            "query_matrix": of(layer, "q", "weight"),
            "query_bias": of(layer, "q", "bias"),
            "key_matrix": of(layer, "k", "weight"),
            "key_bias": of(layer, "k", "bias"),
        }
        for layer in (0, 1)
    }


@pytest.fixture(params=["state dict", "matrices", "matrices, pickled without torch"])
def file(request, tmp_path, state_dict, matrices):
    path = tmp_path / "published.pt"
    if request.param == "state dict":
        torch.save(state_dict, path)
    elif request.param == "matrices":
        torch.save(matrices, path)
    else:
        path.write_bytes(pickle.dumps(matrices))
    return path


@torch.no_grad()
def test_converted_networks_compute_the_same_as_the_originals(modules, file):
    tensors = converted_networks(file)
    query, key = torch.randn(1, HEADS, 5, SIZES[0]), torch.randn(1, GROUPS, 5, SIZES[0])
    for layer in (0, 1):
        networks = HashNetworks.of_layer(tensors, layer)
        assert networks is not None
        of_queries, of_keys = networks.of_queries(query), networks.of_keys(key)
        for head in range(HEADS):
            expected = modules[layer, "q"][head](query[:, head])
            torch.testing.assert_close(of_queries[:, head], expected)
            expected = modules[layer, "k"][head](key[:, head // (HEADS // GROUPS)])
            torch.testing.assert_close(of_keys[:, head], expected)
    assert HashNetworks.of_layer(tensors, 2) is None


def without_bias(found):
    found[1]["key_bias"].pop()


def bias_of_other_length(found):
    found[1]["key_bias"][0] = torch.zeros(HEADS, 13)


def maps_that_do_not_follow(found):
    found[0]["query_matrix"][1] = torch.zeros(HEADS, 11, 10)


def signatures_of_other_length(found):
    found[0]["query_matrix"][2] = torch.zeros(HEADS, 10, 9)
    found[0]["query_bias"][2] = torch.zeros(HEADS, 9)


def matrix_of_one_head(found):
    found[0]["query_matrix"][0] = torch.zeros(16, 12)


def no_keys(found):
    del found[0]["key_matrix"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without_bias, "3 tensors in key_matrix but 2 in key_bias"),
        (bias_of_other_length, r"key.0.bias is \[4, 13\], not \[4, 12\]"),
        (maps_that_do_not_follow, r"query.1.weight is \[4, 11, 10\], not \[4, 12, out\]"),
        (signatures_of_other_length, r"\(4, 9\).*\(4, 8\)"),
        (matrix_of_one_head, r"query.0.weight is \[16, 12\], not \[heads, in, out\]"),
        (no_keys, "no list of tensors named key_matrix"),
    ],
)
def test_shapes_that_do_not_match_are_named(tmp_path, matrices, damage, message):
    damaged = {
        layer: {name: list(tensors) for name, tensors in of_layer.items()}
        for layer, of_layer in matrices.items()
    }
    damage(damaged)
    torch.save(damaged, tmp_path / "published.pt")
    with pytest.raises(ConfigurationError, match=message):
        converted_networks(tmp_path / "published.pt")


def test_a_state_dict_that_lacks_a_head_is_refused(tmp_path, state_dict):
    torch.save(
        {name: tensor for name, tensor in state_dict.items() if "_q.2." not in name},
        tmp_path / "published.pt",
    )
    with pytest.raises(ConfigurationError, match=r"heads \[0, 1, 3\]"):
        converted_networks(tmp_path / "published.pt")


@pytest.mark.parametrize("content", [{}, [1], {"model.weight": torch.ones(2)}, {0: {"a": 1}}])
def test_the_error_for_another_file_names_the_expected_formats(tmp_path, content):
    torch.save(content, tmp_path / "published.pt")
    with pytest.raises(ConfigurationError, match="learning_to_hash_transformation_q"):
        converted_networks(tmp_path / "published.pt")
