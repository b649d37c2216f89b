"""Needles in contexts that the induction model reads sparsely."""

from collections.abc import Callable

from omegaconf import DictConfig
from presets import PREFILLING

from sah.execution.attempts import compute_arms


def test_a_needle_is_found_where_the_context_reads_near_keys(
    configure: Callable[..., DictConfig],
) -> None:
    """Its tokens must read the four before them; with the last two alone it is lost."""
    lost = ["sparse_attention=a_shape", "sparse_attention.prefill.a_shape.window=2"]
    arms = {name: [f"sparse_attention={name}"] for name in PREFILLING} | {"lost": lost}
    common = ["model=induction", "benchmark=ruler", "benchmark.subset=niah_multikey_2"]
    common += ["benchmark.context_tokens=2048", "benchmark.samples=1"]
    lists = [[*common, *overrides] for overrides in arms.values()]
    ended = compute_arms([(configure(*overrides), overrides) for overrides in lists])
    scores = {}
    for name, outcome in zip(arms, ended, strict=True):
        assert outcome.result is not None, outcome.error
        scores[name] = outcome.result.score
    assert scores == dict.fromkeys(PREFILLING, 1.0) | {"lost": 0.0}
