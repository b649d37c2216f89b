"""Arms that read the context in different ways: who shares a prefill, and what is compared."""

import gc
import weakref

import orjson
import pytest

from sah.execution.attempts import compute, compute_arms
from sah.models.language_model import LanguageModel
from sah.results import directory
from sah.results.store import ResultStore

SMALL = {name: f"sparse_attention.prefill.{name}.window=8" for name in ("a_shape", "tri_shape")}
A_SHAPE = ["+pattern@sparse_attention.prefill.a_shape=a_shape", SMALL["a_shape"]]
ARMS = {
    "a_shape": ["attention=a_shape", SMALL["a_shape"]],
    "dense": ["attention=dense"],
    "a_shape and selection": ["attention=streaming_llm", *A_SHAPE],
    "tri_shape": ["attention=tri_shape", SMALL["tri_shape"]],
    "a_shape and eviction": ["attention=snapkv", *A_SHAPE],
    "eviction": ["attention=h2o"],
    "a_shape with a dense layer": [
        *("attention=a_shape", SMALL["a_shape"]),
        "sparse_attention.dense_layers=[0]",
    ],
}
SPARSE = ("a_shape", "a_shape and selection", "a_shape and eviction")


@pytest.fixture
def configure(configure):
    small = "sparse_attention.prefill.a_shape.sinks=2"

    def make(name, *overrides, root="outputs"):
        sinks = [small] if "a_shape" in name else []
        return configure("model=tiny", "benchmark=mock", *ARMS[name], *sinks, *overrides, root=root)

    return make


@pytest.fixture
def bundle(configure):
    """Compute arms in one job; returns them."""

    def run(names, *overrides, root="outputs"):
        return compute_arms([(configure(name, *overrides, root=root), []) for name in names])

    return run


def folders(configure, names, *overrides, root="outputs"):
    return [directory(configure(name, *overrides, root=root)) for name in names]


@pytest.fixture
def prefills(monkeypatch):
    """The patterns of all prefills, in order; each finds no earlier cache in memory."""
    seen, caches = [], []
    real = LanguageModel.prefill

    def prefill(self, ids, **options):
        gc.collect()
        assert [cache() for cache in caches] == [None] * len(caches)
        context = real(self, ids, **options)
        caches.append(weakref.ref(context.cache))
        sparse = options.get("sparse")
        seen.append("dense" if sparse is None else type(sparse.pattern).__name__)
        return context

    monkeypatch.setattr(LanguageModel, "prefill", prefill)
    return seen


@pytest.mark.parametrize(
    "overrides",
    [
        ("metric_logging=full", "generation.temperature=0.8"),
        ("protocol=forced",),
        ("generation.batch_rows=1",),
    ],
    ids=" ".join,
)
def test_every_arm_has_the_results_of_a_separate_run(bundle, configure, outcome, overrides):
    ended = bundle(ARMS, *overrides)
    assert [arm.error for arm in ended] == [None] * len(ARMS)
    for name in ARMS:
        compute(configure(name, *overrides, root="separately"), [])
    for name, folder in zip(ARMS, folders(configure, ARMS, *overrides), strict=True):
        (alone,) = folders(configure, [name], *overrides, root="separately")
        assert outcome(folder) == outcome(alone)


def test_arms_that_read_the_context_alike_share_a_prefill_and_the_dense_one_is_first(
    bundle, prefills
):
    ended = bundle(ARMS, "generation.batch_rows=1")
    # The last one has another layer dense.
    assert prefills == 2 * ["dense", "AShape", "TriShape", "AShape"]
    saved = [arm.result.timing.prefill_seconds_saved > 0 for arm in ended]
    assert dict(zip(ARMS, saved, strict=True)) == {
        "a_shape": False,
        "dense": False,
        "a_shape and selection": True,
        "tri_shape": False,
        "a_shape and eviction": True,
        "eviction": True,
        "a_shape with a dense layer": False,
    }
    densities = {name: arm.result.prefill_density for name, arm in zip(ARMS, ended, strict=True)}
    assert densities["dense"] == densities["eviction"] == 1
    assert len({densities[name] for name in SPARSE}) == 1
    assert densities["a_shape"] < densities["a_shape with a dense layer"] < 1


def test_after_a_sparse_prefill_alone_queries_read_everything(bundle):
    ((arm,),) = (bundle(["a_shape"]),)
    assert (arm.result.density, arm.result.rows_read, arm.result.resident) == (1, 1, 1)
    assert arm.result.output_error is None


def test_the_forced_answer_is_that_of_a_dense_prefill(bundle, configure, prefills):
    one_by_one = ("protocol=forced", "generation.batch_rows=1")
    (dense,) = bundle(["dense"], *one_by_one)
    assert prefills == 2 * ["dense"]
    ended = bundle(SPARSE, *one_by_one)
    assert prefills[2:] == 2 * ["dense", "AShape"]
    assert all(arm.result.dense_agreement.kl > 1e-4 for arm in ended)
    texts = [
        [orjson.loads(line)["text"] for line in (folder / "predictions.jsonl").open("rb")]
        for folder in folders(configure, ["dense", *SPARSE], *one_by_one)
    ]
    assert all(one == texts[0] for one in texts)
    assert dense.result.dense_agreement.kl == pytest.approx(0, abs=1e-6)


def test_a_prefill_that_fails_is_the_error_of_its_own_arms(bundle, calls):
    error = RuntimeError("bug")
    # Both contexts are prefilled for the dense arm first.
    calls(LanguageModel, "prefill", raise_at=3, error=error)
    ended = bundle(["dense", "a_shape", "a_shape and selection", "tri_shape"], "retries=0")
    assert [arm.error for arm in ended] == [None, error, error, None]


def test_a_dense_prefill_that_fails_under_teacher_forcing_is_the_error_of_every_arm(bundle, calls):
    error = RuntimeError("bug")
    calls(LanguageModel, "prefill", raise_at=1, error=error)
    ended = bundle(["a_shape", "tri_shape"], "protocol=forced", "retries=0")
    assert [arm.error for arm in ended] == [error, error]


def test_interrupted_arms_go_on_to_identical_results(
    bundle, configure, outcome, calls, monkeypatch
):
    names = ("dense", *SPARSE)
    calls(ResultStore, "append", raise_at=6, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        bundle(names)
    monkeypatch.undo()
    bundle(names)
    bundle(names, root="whole")
    for one, other in zip(
        folders(configure, names), folders(configure, names, root="whole"), strict=True
    ):
        assert outcome(one) == outcome(other)
