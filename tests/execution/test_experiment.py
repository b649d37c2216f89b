"""Mistakes in an experiment are found before anything runs, and named."""

import copy
import functools
import math

import hydra
import pytest
import yaml
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf

from sah.benchmarks.jsonl import JsonLines
from sah.errors import ConfigurationError, DatasetError, SahError
from sah.execution.attempts import compute
from sah.execution.checks import check, find_complete
from sah.execution.experiment import Experiment
from sah.execution.hydra_settings import require_fixed_settings
from sah.execution.rescoring import rescore
from sah.models.tiny import TinyModel
from sah.paths import config_folder

MOCK = ("model=tiny", "benchmark=mock")
CONF = config_folder()


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
        (["generation.batch_rows=0"], ["batch_rows must be at least 1", "got 0"]),
        (
            ["generation.batch_rows=null"],
            ["generation.batch_rows must be a whole number, got None"],
        ),
        (["generation.batch_tokens=0"], ["batch_tokens must be at least 1", "got 0"]),
        (
            ["benchmark.repeats=4"],
            ["benchmark.repeats=4 samples", "temperature=0 is greedy", "temperature above 0"],
        ),
        (
            ["benchmark.repeats=4", "generation.temperature=1", "generation.top_k=1"],
            ["benchmark.repeats=4 samples", "generation.top_k=1 is greedy", "top_k above 1"],
        ),
        (
            ["benchmark=perplexity", "benchmark.repeats=2", "generation.temperature=1"],
            ["benchmark.repeats=2, but the loss of a continuation"],
        ),
        (["generation.max_new_tokens=0"], ["max_new_tokens must be at least 1"]),
        (["+generation.beams=4"], ["generation.beams is not a key of Generation; choose from"]),
        (["+generation.top=4"], ["did you mean generation.top_p?"]),
        (["+model.layer=4"], ["model.layer is not a key of TinyModel; did you mean model.layers?"]),
        (["+model._partial_=true"], ["model._partial_ is not a key of TinyModel"]),
        (["+tracker.x=1"], ["tracker.x is not a key of NoTracker; there is none"]),
        (
            ["+sparse_attention.maskers.sink.token=4"],
            ["sink.token is not a key of Sink; did you mean sparse_attention.maskers.sink.tokens?"],
        ),
        (["+timeout_minute=5"], ["timeout_minute is not a key", "did you mean timeout_minutes?"]),
        (["+x=1"], ["x is not a key of an experiment", "+study.x=VALUE", "benchmark, bundle"]),
        (["+masker=sink"], ["+masker@sparse_attention.maskers.NAME=OPTION"]),
        (["+evictor=snapkv"], ["+evictor@sparse_attention.evict.NAME=OPTION"]),
        (["+pattern=a_shape"], ["+pattern@sparse_attention.prefill.NAME=OPTION"]),
        (
            ["attention=a_shape", "+pattern@sparse_attention.prefill.tri_shape=tri_shape"],
            ["2 patterns (a_shape, tri_shape)", "~sparse_attention.prefill.NAME"],
        ),
        (
            ["attention=h2o", "+pattern@sparse_attention.prefill.a_shape=a_shape"],
            ["evict.h2o sums the attention", "prefill.a_shape", "such as snapkv"],
        ),
        (["attention=a_shape", "sparse_attention.prefill.a_shape.window=0"], ["window", "got 0"]),
        (["attention=a_shape", "sparse_attention.prefill.a_shape.sinks=-1"], ["sinks", "got -1"]),
        (
            ["attention=kvzip", "protocol=question_dense"],
            ["kvzip scores the keys of a context by repeating it", "protocol=default"],
        ),
        (
            ["attention=adakv", "evictor@sparse_attention.evict.adakv.of=kvzip"],
            ["AdaKV: `of` is KVzip with across=model", "of.across=head"],
        ),
        (["attention=kvzip", "sparse_attention.evict.kvzip.sinks=0"], ["sinks", "got 0"]),
        (["attention=kvzip", "sparse_attention.evict.kvzip.chunk=0"], ["chunk", "got 0"]),
        (["attention=kvzip", "sparse_attention.evict.kvzip.across=all"], ["across", "'all'"]),
        (["+rewriter=kivi"], ["+rewriter@sparse_attention.rewrite.NAME=OPTION"]),
        (
            ["attention=kivi", "+rewriter@sparse_attention.rewrite.think=think"],
            ["2 rewriters (kivi, think)", "~sparse_attention.rewrite.NAME"],
        ),
        (
            ["attention=h2o_decoding", "+rewriter@sparse_attention.rewrite.kivi=kivi"],
            ["evict.h2o_decoding evicts while decoding", "rewrite.kivi", "remove one"],
        ),
        (["attention=kivi", "sparse_attention.rewrite.kivi.bits=3"], ["KIVI: bits", "got 3"]),
        (["attention=kivi", "sparse_attention.rewrite.kivi.residual=-1"], ["residual", "got -1"]),
        (["attention=quantised", "sparse_attention.rewrite.quantised.group=0"], ["group", "got 0"]),
        (["attention=think", "sparse_attention.rewrite.think.fraction=1.5"], ["(0, 1]", "ThinK"]),
        (["attention=think", "sparse_attention.rewrite.think.window=0"], ["window", "got 0"]),
        (
            ["attention=knorm", "+evictor@sparse_attention.evict.snapkv=snapkv"],
            ["2 evictors (knorm, snapkv)", "~sparse_attention.evict.NAME"],
        ),
        (["attention=knorm", "sparse_attention.evict.knorm.fraction=1.5"], ["(0, 1]", "KNorm"]),
        (["attention=snapkv", "sparse_attention.evict.snapkv.kernel=4"], ["odd", "got 4"]),
        (["output_root=null"], ["output_root must be text, got None"]),
        (["output_root="], ["output_root='' is not the name of a folder", "output_root=DIR"]),
        (["output_root=' '"], ["output_root=' ' is not the name of a folder"]),
        (["output_root='~/x'"], ["output_root='~/x' would be a folder named ~"]),
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
            [
                "sparse_attention: ",
                "custom",
                "+masker@sparse_attention.maskers",
                "+pattern@sparse_attention.prefill",
                "+evictor@sparse_attention.evict",
                "+rewriter@sparse_attention.rewrite",
            ],
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
def test_mistake_is_named(configure, compose, overrides, expected):
    config = configure(*MOCK, *overrides)
    if any("output_root" in override for override in overrides):
        config = compose(*MOCK, *overrides)
    with pytest.raises(ConfigurationError) as caught:
        check(config, overrides)
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize("path", ["model_kwargs.a", "tokenizer_kwargs.a.b"])
@pytest.mark.parametrize("value", ["nan", "-inf", "99999999999999999999"])
def test_a_number_that_cannot_be_stored_is_named_in_free_keywords_too(configure, path, value):
    overrides = ["model=hf", "model.name_or_path=x", "benchmark=mock", f"+model.{path}={value}"]
    with pytest.raises(ConfigurationError, match=rf"^model\.{path} must .*, got {value}$"):
        check(configure(*overrides), overrides)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("job.chdir", True),
        ("run.dir", "elsewhere"),
        ("sweep.dir", "elsewhere"),
        ("sweep.subdir", "x"),
        ("output_subdir", ".hydra"),
    ],
)
def test_a_setting_of_hydra_that_would_move_results_is_refused_by_name(setting, value):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose(
            "config", [*MOCK, f"hydra.{setting}={value}"], return_hydra_config=True
        )
    with pytest.raises(ConfigurationError, match=rf"^hydra\.{setting}={value} .* output_root=DIR"):
        find_complete(config)


def test_the_settings_of_hydra_in_the_repository_are_accepted():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", [*MOCK], return_hydra_config=True)
    require_fixed_settings(config)
    config.hydra.job.chdir = None
    require_fixed_settings(config)


def test_an_output_root_longer_than_the_file_system_allows_is_named(compose):
    config = compose(*MOCK, f"output_root={300 * 'x'}")
    for ask in (lambda: find_complete(config), lambda: check(config, [])):
        with pytest.raises(
            ConfigurationError, match="xxx' \\(File name too long\\); choose another"
        ):
            ask()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "cannot be read: No such file or directory"),
        ('{"context": "c", "question": "q", "references": []}', "line 1: references must be"),
    ],
)
def test_the_file_of_a_benchmark_is_checked_before_the_model_is_loaded(
    configure, calls, tmp_path, content, expected
):
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_text(content)
    config = configure("model=tiny", "benchmark=jsonl", f"benchmark.path={path}")
    loads = calls(TinyModel, "load")
    Experiment.from_config(config)
    with pytest.raises(DatasetError, match=expected):
        check(config, [])
    assert loads == []


def test_the_data_of_equal_benchmarks_are_checked_once_unless_they_are_wrong(
    configure, calls, tmp_path
):
    path = tmp_path / "rows.jsonl"
    path.write_text("{")
    checks = calls(JsonLines, "check_data")
    jobs = [("attention=dense", "seed=1"), ("attention=sparse", "seed=2")]
    configs = [
        configure("model=tiny", "benchmark=jsonl", f"benchmark.path={path}", *job) for job in jobs
    ]
    for number, config in enumerate(configs, start=1):
        with pytest.raises(DatasetError, match="line 1"):
            check(config, [])
        assert len(checks) == number
    path.write_text('{"context": "c", "question": "q", "references": "r"}')
    for config in configs:
        check(config, [])
    assert len(checks) == 3


def test_the_folder_of_a_suite_is_checked_before_the_model_is_loaded(configure, tmp_path):
    config = configure("model=tiny", "benchmark=longbench", f"benchmark.path={tmp_path}")
    with pytest.raises(
        DatasetError, match=r"has no \.parquet, \.jsonl or \.csv file of .*LongBench"
    ):
        check(config, [])


def test_an_escaped_interpolation_stays_text_in_a_path(compose, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = r"a\${seed}"
    config = compose(
        *("model=tiny", "benchmark=jsonl", "benchmark.limit=1", f"output_root={name}"),
        f"benchmark.path={name}.jsonl",
    )
    (tmp_path / "a${seed}.jsonl").write_text(
        '{"context": "c", "question": "q", "references": "r"}\n'
    )
    experiment = Experiment.from_config(config)
    assert experiment.benchmark.path == "a${seed}.jsonl"
    result = compute(config, [f"output_root={name}"])
    assert result.directory.parts[0] == "a${seed}"
    assert rescore(result.directory) == (result.score, result.score)


def test_the_default_experiment_is_valid(configure):
    check(configure(), [])


def test_construction_loads_nothing_and_writes_nothing(configure, calls, tmp_path):
    loads = calls(TinyModel, "load")
    Experiment.from_config(configure(*MOCK))
    assert loads == []
    assert list(tmp_path.iterdir()) == []


# -- the type of every field of every option -------------------------------------------------

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
    except SahError as error:
        return str(error)
    return None


@pytest.mark.parametrize("option", list(options()))
def test_a_value_of_a_wrong_type_is_refused_by_name(
    compose, tmp_path, calibrated, option, monkeypatch
):
    # A tracker with values of the right types may make its store.
    monkeypatch.setattr("sah.tracking.require_working", lambda tracker: None)
    group, name = option.split("=")
    stages = ("evictor", "masker", "pattern", "rewriter")
    key = "sparse_attention" if group in stages else group
    own = f"sparse_attention.evict.{name}"
    arguments = {
        "evictor": [
            "attention=custom",
            f"+evictor@{own}={name}",
            *([f"{own}.press=kvpress.KnormPress"] if name == "kvpress" else []),
        ],
        "rewriter": ["attention=custom", f"+rewriter@sparse_attention.rewrite.{name}={name}"],
        "pattern": ["attention=custom", f"+pattern@sparse_attention.prefill.{name}={name}"],
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
            if message is not None and message.startswith(f"{full} must "):
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
        ("timeout_minutes=nan", "timeout_minutes must be a finite number, got nan"),
        ("seed=99999999999999999999", "seed must fit into 64 bits"),
        ("study=3", "study must be a mapping, got 3"),
        ("+study.a={b: [1, nan]}", "study.a.b[1] must be a finite number, got nan"),
        (
            "+sparse_attention.layers={0-1: {s: {_target_: sah.maskers.sink.Sink, tokens: inf}}}",
            "sparse_attention.layers.0-1.s.tokens must be a whole number, got inf",
        ),
        ("generation.top_k=2.5", "generation.top_k must be a whole number or null, got 2.5"),
        ("generation.temperature=nan", "generation.temperature must be a finite number, got nan"),
        (
            "sparse_attention.maskers.sink.tokens=2.5",
            "sparse_attention.maskers.sink.tokens must be a whole number, got 2.5",
        ),
        (
            "sparse_attention.maskers.oracle_top_k.fraction=nan",
            "sparse_attention.maskers.oracle_top_k.fraction must be a finite number, got nan",
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
