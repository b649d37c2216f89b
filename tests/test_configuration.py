"""What is wrong with an experiment is found before anything runs, and named."""

import pytest
from hydra.errors import HydraException

from sah.errors import ConfigurationError
from sah.job import check


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=nope"], ["model/nope", "smollm2"]),
        (["sparse_attention.maskers.sink.token=3"], ["sparse_attention.maskers.sink.token"]),
        (["sparse_attention.maskers.local.tokens=0"], ["Local", "0", "at least 1"]),
        (["sparse_attention.maskers.oracle_top_k.fraction=1.5"], ["fraction", "1.5", "(0, 1]"]),
        (["sparse_attention.maskers.oracle_top_k.tokens=8"], ["tokens=8", "fraction=0.1", "null"]),
        (["attention=custom"], ["custom", "+masker@sparse_attention.maskers"]),
        (["benchmark=ruler", "benchmark.context_tokens=100000"], ["context_tokens=100000", "8192"]),
        (["benchmark.limit=0"], ["limit", "0"]),
        (["generation.temperature=-1"], ["temperature", "-1"]),
        (["generation.top_k=5"], ["top_k", "temperature 0"]),
        (["seed=one"], ["seed", "'one'"]),
        (["timeout_minutes=0"], ["timeout_minutes", "0"]),
        (["metric_logging.enabled_metrics=[nope]"], ["nope", "research_attention_density"]),
        (["model.device=cuda:7"], ["cuda:7", "GPUs"]),
        (["model.dtype=int8"], ["int8", "bfloat16"]),
        (["protocol.question=both"], ["question", "both"]),
    ],
)
def test_mistake_is_named(compose, tmp_path, overrides, expected):
    overrides = ["model=tiny", "benchmark=mock", f"output_root={tmp_path}", *overrides]
    with pytest.raises((ConfigurationError, HydraException)) as caught:
        check(compose(*overrides), overrides)
    message = f"{caught.value} {caught.value.__cause__}"
    for part in expected:
        assert part in message


def test_default_experiment_is_sound(compose, tmp_path):
    check(compose(f"output_root={tmp_path}"), [])
