"""On long contexts the cache is what fills a GPU: there is never a second one."""

import copy
from pathlib import Path

import pytest
from hydra.utils import instantiate
from torch.profiler import ProfilerActivity, profile

from sah.attention.session import AttentionSession
from sah.models.generation import Generation
from sah.models.tiny import TinyModel

CONF = Path(__file__).resolve().parents[2] / "conf"
pytestmark = pytest.mark.usefixtures("calibrated")

PRESETS = sorted(
    path.stem for path in (CONF / "sparse_attention").glob("*.yaml") if path.stem != "custom"
)
LAYERS, GROUPS, HEAD_DIM, CONTEXT = 16, 2, 16, 1000
# Keys and values in float32.
CACHE_BYTES = 2 * LAYERS * GROUPS * CONTEXT * HEAD_DIM * 4
CONTEXT_IDS = [1 + (7 * n) % 390 for n in range(CONTEXT)]
QUESTION_IDS = [5, 9, 14, 30]


def peak_bytes(action):
    """The most memory that was held at once beyond what was held at the beginning."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        kept = action()
    held = peak = 0
    for event in sorted(profiler.events(), key=lambda event: event.time_range.start):
        if event.name == "[memory]":
            held += event.cpu_memory_usage
            peak = max(peak, held)
    return peak, kept


@pytest.fixture(scope="module")
def model():
    return TinyModel(layers=LAYERS, key_value_heads=GROUPS, head_dim=HEAD_DIM).load()


@pytest.fixture(scope="module")
def context(model):
    return model.prefill(CONTEXT_IDS, reserve_tokens=20)


def test_a_copy_of_the_cache_would_be_seen(context):
    peak, _ = peak_bytes(lambda: copy.deepcopy(context.cache))
    assert peak > 0.95 * CACHE_BYTES


@pytest.mark.parametrize("name", PRESETS)
def test_answers_of_an_arm_copy_nothing_of_the_cache(model, context, compose, name):
    attention = instantiate(
        compose("model=tiny", f"attention={name}").sparse_attention, _convert_="all"
    )
    buffers = [layer.keys.data_ptr() for layer in context.cache.layers]

    def answer_twice():
        session = AttentionSession(attention, seed=0)
        session.begin_context(context.length)
        for question in ("A", "B"):
            session.begin_example(question)
            model.answer(
                context,
                QUESTION_IDS,
                session=session,
                sampler=Generation().sampler(0, question, model.device),
                max_new_tokens=3,
            )
        session.end_context()

    peak, _ = peak_bytes(answer_twice)
    # What one layer works on, and the arm's index if it has one.
    assert peak < 0.5 * CACHE_BYTES
    assert [layer.keys.data_ptr() for layer in context.cache.layers] == buffers
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
