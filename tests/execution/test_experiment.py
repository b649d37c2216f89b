"""What is wrong with an experiment is found before anything runs, and named."""

import pytest
from hydra.errors import HydraException

from sah.errors import ConfigurationError
from sah.execution.checks import check
from sah.execution.experiment import Experiment
from sah.models.tiny import TinyModel

MOCK = ("model=tiny", "benchmark=mock")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model=nope", ["model/nope", "smollm2"]),
        ("sparse_attention.maskers.sink.token=3", ["sparse_attention.maskers.sink.token"]),
    ],
)
def test_what_is_not_there_is_hydras_error(configure, override, expected):
    with pytest.raises(HydraException) as caught:
        configure(*MOCK, override)
    message = f"{caught.value} {caught.value.__cause__}"
    for part in expected:
        assert part in message


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["seed=one"], ["seed must be a whole number, got 'one'"]),
        (["seed=true"], ["seed must be a whole number, got True"]),
        (["seed=1.5"], ["seed must be a whole number, got 1.5"]),
        (["timeout_minutes=0"], ["timeout_minutes must be positive or null, got 0"]),
        (["timeout_minutes=soon"], ["timeout_minutes must be positive or null, got 'soon'"]),
        (["generation.temperature=-1"], ["temperature must be at least 0", "-1"]),
        (["generation.top_k=5"], ["top_k", "temperature 0"]),
        (["generation.batch_questions=1"], ["batch_questions must be at least 2, or null"]),
        (
            ["generation.batch_questions=4", "protocol=forced"],
            ["batch_questions=4 decodes free answers"],
        ),
        (["generation.max_new_tokens=0"], ["max_new_tokens must be at least 1"]),
        (["+generation.beams=4"], ["beams"]),
        (["model.layers=two"], ["model: ", "layers must be int, got 'two'"]),
        (["model.head_dim=null"], ["model: ", "head_dim must be int, got None"]),
        (["model.heads=3"], ["model: ", "model.heads=3"]),
        (["model.device=cuda:7"], ["cuda:7", "GPUs"]),
        (["model.dtype=int8"], ["int8", "bfloat16"]),
        (["benchmark.subset=none"], ["benchmark: ", "choose from mock"]),
        (["benchmark.limit=0"], ["benchmark.limit must be at least 1, got 0"]),
        (["benchmark=ruler", "benchmark.context_tokens=100000"], ["context_tokens=100000", "8192"]),
        (
            ["attention=custom"],
            ["sparse_attention: ", "no masker", "custom", "+masker@sparse_attention.maskers"],
        ),
        (["sparse_attention.maskers.sink.tokens=-1"], ["sparse_attention: ", "Sink", "tokens"]),
        (["sparse_attention.maskers.local.tokens=0"], ["Local", "0", "at least 1"]),
        (["sparse_attention.maskers.oracle_top_k.fraction=1.5"], ["fraction", "1.5", "(0, 1]"]),
        (["sparse_attention.maskers.oracle_top_k.tokens=8"], ["tokens=8", "fraction=0.1", "null"]),
        (["metric_logging.sampling_factor=2"], ["metric_logging: ", "[0, 1], got 2"]),
        (["metric_logging.enabled_metrics=[nope]"], ["nope", "research_attention_density"]),
        (["protocol.question=maybe"], ["protocol: ", "question", "maybe"]),
        (["bundle=model"], ["bundle must be attention or none, got 'model'"]),
        (["bundle_max=0"], ["bundle_max must be at least 1 or null, got 0"]),
        (["bundle_max=true"], ["bundle_max must be at least 1 or null, got True"]),
    ],
)
def test_mistake_is_named(configure, overrides, expected):
    config = configure(*MOCK, *overrides)
    with pytest.raises(ConfigurationError) as caught:
        check(config, overrides)
    for part in expected:
        assert part in str(caught.value)


def test_default_experiment_is_sound(configure):
    check(configure(), [])


def test_construction_loads_nothing_and_writes_nothing(configure, calls, tmp_path):
    loads = calls(TinyModel, "load")
    Experiment.from_config(configure(*MOCK))
    assert loads == []
    assert list(tmp_path.iterdir()) == []
