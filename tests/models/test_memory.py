"""On long contexts the cache fills the GPU, so it must never be copied."""

import copy

import pytest
from hydra.utils import instantiate
from peak_memory import peak_bytes
from presets import SELECTING

from sah.attention.session import AttentionSession
from sah.models.generation import Generation
from sah.models.tiny import TinyModel

pytestmark = pytest.mark.usefixtures("calibrated")

PRESETS = ["dense", *SELECTING]
LAYERS, GROUPS, HEAD_DIM, CONTEXT = 16, 2, 16, 1000
# Keys and values in float32.
CACHE_BYTES = 2 * LAYERS * GROUPS * CONTEXT * HEAD_DIM * 4
CONTEXT_IDS = [1 + (7 * n) % 390 for n in range(CONTEXT)]
QUESTION_IDS = [5, 9, 14, 30]


def addresses(cache):
    return [(layer.keys.data_ptr(), layer.values.data_ptr()) for layer in cache.layers]


@pytest.fixture(scope="module")
def model():
    return TinyModel(layers=LAYERS, key_value_heads=GROUPS, head_dim=HEAD_DIM).load()


@pytest.fixture(scope="module")
def context(model):
    return model.prefill(CONTEXT_IDS, reserve_tokens=20)


@pytest.mark.parametrize(
    "copied",
    [
        copy.deepcopy,
        lambda cache: [(layer.keys.clone(), layer.values.clone()) for layer in cache.layers],
    ],
    ids=["by_python", "by_operators"],
)
def test_a_copy_of_the_cache_would_be_noticed(copied, context):
    peak, _ = peak_bytes(lambda: copied(context.cache))
    assert peak > 0.95 * CACHE_BYTES


@pytest.mark.parametrize("name", PRESETS)
def test_answering_copies_nothing_of_the_cache(model, context, compose, name):
    # The buckets of SOCKET's sixty tables are larger than this small cache.
    fewer = ["sparse_attention.maskers.socket.tables=8"] if name == "socket" else []
    config = compose("model=tiny", f"attention={name}", *fewer).sparse_attention
    attention = instantiate(config, _convert_="all")
    before = addresses(context.cache)
    session = AttentionSession(attention, seed=0)
    session.begin_context(context.length)

    def answer(question):
        session.begin_example(question)
        return model.answer(
            context,
            QUESTION_IDS,
            session=session,
            sampler=Generation().sampler(0, question, model.device),
            max_new_tokens=3,
        )

    # Builds the arm's index, if it has one; that may be larger than the cache.
    answer("A")
    peak, _ = peak_bytes(lambda: answer("B"))
    # The working memory of one layer.
    assert peak < 0.5 * CACHE_BYTES
    assert addresses(context.cache) == before
    assert context.cache.get_seq_length() == CONTEXT


def test_a_prefill_holds_one_cache(model):
    peak, context = peak_bytes(lambda: model.prefill(CONTEXT_IDS, reserve_tokens=0))
    assert (
        sum(
            tensor.untyped_storage().nbytes()
            for layer in context.cache.layers
            for tensor in (layer.keys, layer.values)
        )
        == CACHE_BYTES
    )
    assert peak < 2 * CACHE_BYTES
