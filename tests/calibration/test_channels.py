import torch

from sah.calibration.channels import ChannelStatistics, ranked_channels


def slow_means(layer, readings):
    """Compute the means of |q_c|, |k_c| and |q_c · k_c| in loops over tokens and pairs."""
    query_sum = key_sum = product_sum = 0.0
    tokens = pairs = 0
    for of_passage in readings:
        query, key = of_passage[layer].query.double(), of_passage[layer].key.double()
        group_size = query.shape[0] // key.shape[0]
        for q in range(query.shape[1]):
            query_sum = query_sum + query[:, q].abs()
            key_sum = key_sum + key[:, q].abs()
            tokens += 1
            for k in range(q + 1):
                heads = [
                    (query[h, q] * key[h // group_size, k]).abs() for h in range(query.shape[0])
                ]
                product_sum = product_sum + torch.stack(heads)
                pairs += 1
    return {"q": query_sum / tokens, "k": key_sum / tokens, "qk": product_sum / pairs}


def test_means_equal_the_definition(readings):
    statistics = ChannelStatistics()
    for of_passage in readings:
        statistics.add(of_passage[1].query, of_passage[1].key)
    means, expected = statistics.means(), slow_means(1, readings)
    assert means.keys() == expected.keys()
    for kind, mean in expected.items():
        torch.testing.assert_close(means[kind], mean)


def test_channels_are_ranked_by_layer_and_head(tiny, passages, readings):
    ranked = ranked_channels(tiny, passages)
    layers = tiny.model.config.num_hidden_layers
    assert len(ranked) == 3 * layers
    for layer in range(layers):
        for kind, mean in slow_means(layer, readings).items():
            found = ranked[f"model.layers.{layer}.self_attn.{kind}_proj"]
            assert torch.tensor(found).equal(mean.argsort(dim=-1, descending=True))
