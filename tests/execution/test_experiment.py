"""Mistakes in an experiment are found before anything runs, and named."""

import copy
import functools
import math

import pytest
import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf

from sah.errors import ConfigurationError
from sah.execution.checks import check
from sah.execution.experiment import Experiment
from sah.models.tiny import TinyModel
from sah.paths import config_folder

MOCK = ("model=tiny", "benchmark=mock")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("model=nope", ["model/nope", "smollm2"]),
        ("sparse_attention.maskers.sink.token=3", ["sparse_attention.maskers.sink.token"]),
    ],
)
def test_an_unknown_option_or_key_is_an_error_of_hydra(configure, override, expected):
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
        (["timeout_minutes=soon"], ["timeout_minutes must be a number or null, got 'soon'"]),
        (["generation.temperature=-1"], ["temperature must be at least 0", "-1"]),
        (["generation.top_k=5"], ["top_k", "temperature 0"]),
        (["generation.batch_questions=1"], ["batch_questions must be at least 2, or null"]),
        (
            ["generation.batch_questions=4", "protocol=forced"],
            ["batch_questions=4 decodes free answers"],
        ),
        (["generation.max_new_tokens=0"], ["max_new_tokens must be at least 1"]),
        (["+generation.beams=4"], ["beams"]),
        (["model.layers=two"], ["model.layers must be a whole number, got 'two'"]),
        (["model.head_dim=null"], ["model.head_dim must be a whole number, got None"]),
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
        (["protocol.question=maybe"], ["protocol.question must be sparse or dense, got 'maybe'"]),
        (["bundle=model"], ["bundle must be attention or none, got 'model'"]),
        (["bundle_max=0"], ["bundle_max must be at least 1 or null, got 0"]),
        (["bundle_max=true"], ["bundle_max must be a whole number or null, got True"]),
    ],
)
def test_mistake_is_named(configure, overrides, expected):
    config = configure(*MOCK, *overrides)
    with pytest.raises(ConfigurationError) as caught:
        check(config, overrides)
    for part in expected:
        assert part in str(caught.value)


def test_the_default_experiment_is_valid(configure):
    check(configure(), [])


def test_construction_loads_nothing_and_writes_nothing(configure, calls, tmp_path):
    loads = calls(TinyModel, "load")
    Experiment.from_config(configure(*MOCK))
    assert loads == []
    assert list(tmp_path.iterdir()) == []


# -- the type of every field of every option -------------------------------------------------

CONF = config_folder()
# What a field may be is one of these for every field there is; the others must be refused.
CANDIDATES = ("text", True, 2.5, 7, None, ["text"], {"key": "text"}, math.nan, 2**70)


def options():
    """Return every option of every group that has a _target_."""
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        if not group.startswith("hydra") and "_target_" in yaml.safe_load(path.read_text()):
            yield f"{group}={path.stem}"


def leaves(node, path):
    """The path of every field whose value is not a mapping with a _target_ inside."""
    for key, value in node.items():
        if isinstance(value, dict) and "_target_" in str(value):
            yield from leaves(value, (*path, key))
        elif key != "_target_":
            yield (*path, key)


def refused(config):
    """Return the message that refuses a configuration, or None if it is accepted."""
    try:
        check(config, [])
    except ConfigurationError as error:
        return str(error)
    return None


@pytest.mark.parametrize("option", list(options()))
def test_a_value_of_a_wrong_type_is_refused_by_name(compose, tmp_path, calibrated, option):
    group, name = option.split("=")
    key = "sparse_attention" if group == "masker" else group
    arguments = {
        "masker": ["attention=custom", f"+masker@sparse_attention.maskers.{name}={name}"],
        "benchmark": [option, *(["benchmark.path=rows.jsonl"] if name == "jsonl" else [])],
        "model": [option, *(["model.name_or_path=folder"] if name == "hf" else [])],
    }.get(group, [option])
    model = [] if group == "model" else ["model=tiny"]
    config = compose(*model, *arguments, f"output_root={tmp_path}")
    part = OmegaConf.to_container(config[key], resolve=True)
    for path in leaves(part, ()):
        outcomes = []
        for value in CANDIDATES:
            changed = copy.deepcopy(part)
            functools.reduce(dict.__getitem__, path[:-1], changed)[path[-1]] = value
            altered = config.copy()
            altered[key] = OmegaConf.create(changed, flags={"allow_objects": True})
            message = refused(altered)
            full = ".".join((key, *path))
            if message is not None and message.startswith(f"{full} must be"):
                outcomes.append(repr(value) in message or "64 bits" in message)
        # At least NaN, a number beyond 64 bits, and three of the other types fit no field.
        assert len(outcomes) >= 5, f"{'.'.join(path)}: {len(outcomes)} values refused"
        assert all(outcomes), path


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("resume=no", "resume must be true or false, got 'no'"),
        ("retries=many", "retries must be a whole number, got 'many'"),
        ("retries=-1", "retries must be at least 0, got -1"),
        ("seed=1e400", "seed must be a whole number, got inf"),
        ("timeout_minutes=nan", "timeout_minutes must be finite"),
        ("seed=99999999999999999999", "seed must be finite and fit into 64 bits"),
        ("study=3", "study must be a mapping, got 3"),
        ("generation.top_k=2.5", "generation.top_k must be a whole number or null, got 2.5"),
        ("generation.temperature=nan", "generation.temperature must be finite"),
        (
            "sparse_attention.maskers.sink.tokens=2.5",
            "sparse_attention.maskers.sink.tokens must be a whole number, got 2.5",
        ),
        (
            "sparse_attention.maskers.oracle_top_k.fraction=nan",
            "sparse_attention.maskers.oracle_top_k.fraction must be finite",
        ),
        (
            "+sparse_attention.layers={0-1: {s: {_target_: sah.maskers.sink.Sink, tokens: x}}}",
            "sparse_attention.layers.0-1.s.tokens must be a whole number, got 'x'",
        ),
        ("sparse_attention._target_=sah.nope.Nope", "'sah.nope.Nope' is not a class"),
    ],
)
def test_the_message_names_key_and_value(configure, override, expected):
    overrides = [*MOCK, "attention=sparse", override]
    assert expected in str(refused(configure(*overrides)))


def test_a_layer_may_be_named_by_a_number(configure):
    config = configure(*MOCK, "attention=sparse")
    config.sparse_attention.layers = {0: "dense"}
    assert refused(config) is None
    assert Experiment.from_config(config).sparse_attention.maskers_at(0) is None


def test_socket_and_quest_take_no_value_of_another_type(configure):
    for preset, key, value in (("socket", "weigh_by_value", "no"), ("quest", "page_size", 2.5)):
        name = f"sparse_attention.maskers.{preset}.{key}"
        message = refused(configure(*MOCK, f"attention={preset}", f"{name}={value}"))
        assert message is not None
        assert message.startswith(f"{name} must be")
