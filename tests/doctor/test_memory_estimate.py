"""The estimate of memory against the tensors that a batch allocates."""

import pytest
from hydra.utils import instantiate
from peak_memory import peak_bytes

from sah.attention import DenseAttention
from sah.attention.session import AttentionSession
from sah.doctor.memory_estimate import estimate_memory
from sah.models.batch import Row, answer_rows
from sah.models.eviction import evicted
from sah.models.generation import Generation
from sah.models.tiny import TinyModel

CONTEXT, NEW, ROWS = 900, 4, 4


@pytest.fixture(scope="module")
def layered():
    """A model whose caches are large beside one layer's activations."""
    return TinyModel(layers=12, key_value_heads=4, head_dim=16).load()


def parts(model, **limits):
    found = estimate_memory(model, [DenseAttention()], 1000, Generation(**limits))
    return found.cache, found.side_by_side


def test_a_batch_has_caches_and_a_copy_of_its_rows(tiny):
    one = tiny.cache_bytes(1000)
    assert parts(tiny) == (32 * one, 32 * one)
    assert parts(tiny, batch_tokens=4500) == (4 * one, 4 * one)
    # A single row is decoded in its own cache.
    assert parts(tiny, batch_rows=1) == parts(tiny, batch_tokens=1999) == (one, 0)


@pytest.mark.parametrize(
    ("name", "copied"),
    [
        # What is left of a batch's copy: everything; a fraction of 0.2; everything and the pages.
        ("dense", 1.0),
        ("snapkv", 0.2),
        ("quest", 1.0),
    ],
)
def test_the_estimate_bounds_the_measured_peak_of_a_batch(layered, composed, name, copied):
    fraction = [f"sparse_attention.evict.snapkv.fraction={copied}"] if name == "snapkv" else []
    attention = instantiate(composed(f"sparse_attention={name}", *fraction), _convert_="all")
    witness = getattr(attention, "witness", None)

    def batch():
        rows = []
        for number in range(ROWS):
            ids = [2 + (7 * n + 31 * number) % 390 for n in range(CONTEXT)]
            context = layered.prefill(ids, reserve_tokens=NEW + 3, witness=witness)
            session = AttentionSession(attention, seed=0)
            own = context
            if witness is not None:
                own = evicted(context, attention, layered.model.config, seed=0)
            session.begin_context(own.length, own.kept)
            rows.append(
                Row(
                    example_id=str(number),
                    context=own,
                    question_ids=[5, 9, 14],
                    session=session.fork(),
                    sampler=Generation().sampler(0, str(number), layered.device),
                    max_new_tokens=NEW,
                )
            )
            held.append(context)
        return answer_rows(layered, rows)

    held = []  # other arms need the contexts after this one
    peak, _ = peak_bytes(batch)
    generation = Generation(batch_rows=ROWS)
    needed = estimate_memory(layered, [attention], CONTEXT + NEW + 3, generation)
    # Both are held at once: the caches, and the copy; before the copy, what an evictor keeps.
    assert peak > needed.cache + (copied + (copied if witness else 0)) * needed.cache
    assert peak < needed.total - needed.weights - needed.workspace
