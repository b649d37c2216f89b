from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from sah.paths import sanitise
from sah.results.identity import (
    as_literals,
    directory,
    experiment_of,
    fingerprint,
    fingerprint_of,
    folders,
)

TINY = ("model=tiny", "benchmark=mock")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (["seed=1", "benchmark.limit=2"], ["benchmark.limit=2", "seed=1"]),
        (["attention=dense"], ["sparse_attention=dense"]),
        (["sparse_attention.maskers.sink.tokens=4"], []),
        (["generation.temperature=1"], ["generation.temperature=1.0"]),
        (["generation.temperature=1e0"], ["generation.temperature=1"]),
        (["generation.top_k=null"], []),
        (["++generation.new_option=null"], []),
        (["benchmark.max_new_tokens=8"], ["++benchmark.max_new_tokens=8"]),
        (["seed=3", "seed=4"], ["seed=4"]),
        (
            ["masker@sparse_attention.maskers.sink=sink"],
            ["sparse_attention.maskers.sink={tokens: 4}"],
        ),
    ],
)
def test_spelling_and_order_of_overrides_do_not_count(compose, one, other):
    assert directory(compose(*TINY, *one)) == directory(compose(*TINY, *other))


@given(
    order=st.permutations(
        ["seed=3", "attention=dense", "model=tiny", "benchmark.limit=1", "benchmark=mock"]
    )
)
@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_all_orders_of_overrides_have_the_same_directory(compose, order):
    assert directory(compose(*order)) == directory(compose(*sorted(order)))


def test_every_changed_value_changes_the_fingerprint(compose):
    changes = (
        [],
        ["seed=1"],
        ["model.layers=4"],
        ["model.weight_seed=1"],
        ["attention=dense"],
        ["attention=streaming_llm"],
        ["sparse_attention.maskers.sink.tokens=5"],
        ["sparse_attention.maskers.local.tokens=5"],
        ["~sparse_attention.maskers.sink"],
        ["+masker@sparse_attention.maskers.tail=random_sampling"],
        ["sparse_attention.dense_layers=[0]"],
        ["sparse_attention.dense_layers=[1]"],
        ["sparse_attention.dense_layers=[0,1]"],
        ["benchmark=ruler"],
        ["benchmark=ruler", "benchmark.subset=niah_single_2"],
        ["benchmark=ruler", "benchmark.subset=[niah_single_1,niah_single_2]"],
        ["benchmark=ruler", "benchmark.subset=null"],
        ["benchmark=ruler", "benchmark.context_tokens=1025"],
        ["benchmark.limit=1"],
        ["benchmark.max_new_tokens=1"],
        ["metric_logging=full"],
        ["metric_logging.sampling_factor=0.5"],
        ["protocol=question_dense"],
        ["generation.max_new_tokens=1"],
        ["generation.temperature=0.5"],
        ["generation.seed=1"],
    )
    found = {fingerprint(compose(*TINY, *change)) for change in changes}
    assert len(found) == len(changes)


def test_order_of_maskers_counts(compose):
    configs = [compose(*TINY, "attention=streaming_llm") for _ in range(2)]
    maskers = configs[0].sparse_attention.maskers
    assert list(maskers) == ["sink", "local"]
    configs[1].sparse_attention.maskers = {"local": maskers.local, "sink": maskers.sink}
    assert fingerprint(configs[0]) != fingerprint(configs[1])


def test_order_of_maskers_counts_in_single_layers_too(compose):
    first, second = "sparse_attention.layers.L0.a", "sparse_attention.layers.L0.b"
    orders = [(first, second), (second, first)]
    found = {
        fingerprint(compose(*TINY, f"+masker@{one}=sink", f"+masker@{other}=sink"))
        for one, other in orders
    }
    assert len(found) == 2


def test_variables_of_a_study_count_only_where_they_are_used(compose):
    used = "sparse_attention.maskers.oracle_top_k.fraction=${study.density}"
    budget = "attention=oracle_top_k"
    plain = fingerprint(compose(*TINY, budget))
    assert fingerprint(compose(*TINY, budget, "+study.density=0.2")) == plain
    assert fingerprint(compose(*TINY, budget, "+study.density=0.1", used)) == plain
    assert fingerprint(compose(*TINY, budget, "+study.density=0.2", used)) != plain


def test_order_of_keys_elsewhere_does_not_count():
    assert fingerprint(OmegaConf.create({"a": {"x": 1, "y": 2}, "b": 3})) == fingerprint(
        OmegaConf.create({"b": 3, "a": {"y": 2, "x": 1}})
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"x": [1, 2]}, {"x": [2, 1]}),
        ({"x": {}}, {"x": []}),
        ({"x": "1"}, {"x": 1}),
        ({"x": True}, {"x": 1}),
    ],
)
def test_lists_keep_their_order_and_types_differ(one, other):
    assert fingerprint(OmegaConf.create(one)) != fingerprint(OmegaConf.create(other))


@pytest.mark.parametrize(
    "override",
    [
        *("resume=false", "timeout_minutes=3", "output_root=elsewhere"),
        *("bundle=none", "bundle_max=3", "tracker=tensorboard"),
    ],
)
def test_keys_that_cannot_change_the_files_do_not_count(compose, override):
    assert fingerprint(compose(*TINY, override)) == fingerprint(compose(*TINY))


@pytest.mark.parametrize(
    "overrides",
    [
        ("attention=dense", "generation.temperature=1.0", "generation.top_p=0.1"),
        ("attention=sparse", "sparse_attention.dense_layers=[0]", "seed=9007199254740993"),
        ("attention=vattention", "metric_logging=full", "timeout_minutes=3"),
        ("attention=quest", "benchmark=ruler", "benchmark.subset=[vt,cwe]"),
        ("attention=oracle_top_p", "benchmark=jsonl", "benchmark.path=tests/results/conftest.py"),
    ],
)
def test_the_fingerprint_is_found_again_from_results_json(compose, overrides):
    config = compose("model=tiny", *overrides)
    read_back = orjson.loads(orjson.dumps(experiment_of(config)))
    assert fingerprint_of(read_back) == fingerprint(config)
    names = (config.model.name, config.sparse_attention.name, config.benchmark.name)
    place = folders(*names, read_back["benchmark"].get("subset"))
    assert place / fingerprint_of(read_back) == directory(config).relative_to(config.output_root)


def test_a_reference_counts_as_the_value_it_resolves_to(compose):
    by_name = compose("model=hf", "model.name_or_path=org/name")
    spelled_out = compose("model=hf", "model.name_or_path=org/name", "model.name=org/name")
    assert fingerprint(by_name) == fingerprint(spelled_out)


def test_directory_names_model_attention_benchmark_and_subset(compose):
    config = compose("model=tiny", "attention=dense", "benchmark=ruler", "output_root=/data/out")
    expected = Path("/data/out/tiny/dense/ruler_niah_single_1") / fingerprint(config)
    assert directory(config) == expected


@pytest.mark.parametrize(
    ("subset", "name"),
    [
        ("null", "ruler_all"),
        ("[niah_single_1,niah_multivalue]", "ruler_niah_single_1+niah_multivalue"),
    ],
)
def test_directory_names_all_subsets_or_those_of_a_list(compose, subset, name):
    assert directory(compose("benchmark=ruler", f"benchmark.subset={subset}")).parent.name == name


NASTY = st.one_of(
    st.text(max_size=300),
    st.text(alphabet='./\\:*?"<>| -\n\t\x00a', max_size=20),
    st.text(alphabet="éß漢😀", min_size=30, max_size=300),
)


@given(name=NASTY)
@settings(max_examples=300, deadline=None)
def test_sanitised_names_are_one_harmless_path_component(name):
    safe = sanitise(name)
    assert safe not in ("", ".", "..")
    assert not set(safe) & set('/\\:*?"<>|\0\n\t ')
    assert not safe.startswith(".")
    assert not safe.endswith(".")
    # 255 bytes is the limit of common file systems; suffixes need some of them.
    assert len(safe.encode()) <= 200
    assert Path("root", safe).parent == Path("root")


@given(name=NASTY)
@settings(max_examples=50, deadline=None)
def test_sanitising_a_safe_name_changes_nothing(name):
    assert sanitise(sanitise(name)) == sanitise(name)


@given(names=st.tuples(NASTY, NASTY, NASTY, NASTY))
@settings(max_examples=100, deadline=None)
def test_directory_is_always_four_levels_below_the_output_root(names):
    model, attention, benchmark, subset = names
    config = OmegaConf.create({"output_root": "/data/out"})
    # Set, not composed: a name is data, whatever interpolation it looks like.
    for group, name in (
        ("model", model),
        ("sparse_attention", attention),
        ("benchmark", benchmark),
    ):
        config[group] = {"name": name.replace("${", "").replace("???", "")}
    config.benchmark.subset = subset.replace("${", "").replace("???", "")
    path = directory(config)
    assert len(path.relative_to("/data/out").parts) == 4
    assert ".." not in path.parts
    assert path.name == fingerprint(config)


def test_names_that_sanitise_alike_have_different_directories(compose):
    one = compose("model=hf", "model.name_or_path=org/name")
    other = compose("model=hf", "model.name_or_path=org:name")
    assert directory(one).parent == directory(other).parent
    assert directory(one) != directory(other)


@given(text=st.text(alphabet="\\${}a:,' \n\""))
def test_a_literal_text_survives_omegaconf_whatever_it_looks_like(text):
    config = OmegaConf.create(OmegaConf.to_yaml(as_literals({"a": [{"b": text}]})))
    assert OmegaConf.to_container(config, resolve=True) == {"a": [{"b": text}]}
