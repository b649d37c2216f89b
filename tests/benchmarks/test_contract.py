"""The contract of every benchmark in conf/benchmark; a new yaml is tested as soon as it exists."""

import re
from collections import Counter
from dataclasses import fields
from pathlib import Path

import pytest
from hydra.errors import InstantiationException
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf

from sah.errors import ConfigurationError
from sah.results import directory

CONF = Path(__file__).resolve().parents[2] / "conf" / "benchmark"
YAMLS = {path.stem: OmegaConf.load(path) for path in CONF.glob("*.yaml")}
# Without those that need a file.
BENCHMARKS = sorted(
    name
    for name, config in YAMLS.items()
    if "_target_" in config and not OmegaConf.missing_keys(config)
)
# A hundred labels need an example each.
CONTEXT_TOKENS = {"many_shot": 8000}
ALIASES = sorted(name for name, config in YAMLS.items() if "_target_" not in config)


# Published data sets have a path; their own tests cover their answers.
PUBLISHED = {name for name in BENCHMARKS if "path" in OmegaConf.load(CONF / f"{name}.yaml")}
OWN = [name for name in BENCHMARKS if name not in PUBLISHED]


def config_of(name):
    return OmegaConf.load(CONF / f"{name}.yaml")


@pytest.fixture(params=BENCHMARKS)
def build(request, published):
    """Make the benchmark of one yaml, as small as it can be; overrides have no `benchmark.`."""

    def make(*overrides):
        config = config_of(request.param)
        small = [
            f"{name}={value}"
            for name, value in (
                ("samples", 2),
                ("context_tokens", CONTEXT_TOKENS.get(request.param, 3000)),
            )
            if name in config
        ]
        if request.param in PUBLISHED:
            small.append(f"path={published(request.param)}")
        given = OmegaConf.from_dotlist([*small, *overrides])
        return instantiate(OmegaConf.merge(config, given), _convert_="all")

    return make


@pytest.mark.parametrize("overrides", [[], ["limit=3", "repeats=2"]])
def test_the_size_that_is_known_without_a_tokenizer_bounds_the_examples(build, tiny, overrides):
    try:
        benchmark = build(*overrides)
        size = benchmark.size(seed=0)
    except (ConfigurationError, InstantiationException) as error:
        if not re.search("repeats=2, but the loss|model's tokenizer", str(error)):
            raise
        return
    examples = benchmark.examples(tiny.prompts, seed=0)
    limits = [0 if one.is_continuation else one.max_new_tokens for one in examples]
    assert len(size.token_limits) == len(examples)
    assert sum(size.token_limits) >= sum(limits)
    assert size.contexts >= len({one.context for one in examples})
    assert size.follow_ups == sum(one.follow_up is not None for one in examples)


def test_examples_are_well_formed(build, tiny):
    benchmark = build()
    examples = benchmark.examples(tiny.prompts, seed=0)
    assert examples
    assert len({example.id for example in examples}) == len(examples)
    for example in examples:
        assert example.task in benchmark.subsets()
        assert example.question.strip()
        assert example.max_new_tokens >= 1
        length = tiny.prompts.prompt_length(example)
        if benchmark.name in PUBLISHED:
            # An answer may be thousands of tokens long; generation.max_new_tokens limits it.
            assert length < tiny.prompts.max_tokens
        else:
            assert length + example.max_new_tokens <= tiny.prompts.max_tokens


def test_the_yaml_names_every_option(build):
    benchmark = build()
    names = {field.name for field in fields(benchmark) if field.init}
    # `content` is composed, not chosen, and a benchmark that reads nothing has none.
    assert set(config_of(benchmark.name)) - {"_target_", "content"} == names - {"content"}


@pytest.mark.parametrize("alias", ALIASES)
def test_an_alias_is_the_same_experiment(alias, compose):
    (name,) = YAMLS[alias].defaults
    one, other = (
        compose("model=tiny", f"benchmark={option}", "benchmark.limit=2")
        for option in (alias, name)
    )
    assert other.benchmark.name == name
    assert one == other
    assert directory(one) == directory(other)


def test_the_same_seed_makes_the_same_examples(build, tiny):
    assert build().examples(tiny.prompts, seed=3) == build().examples(tiny.prompts, seed=3)


def test_another_seed_generates_other_examples_with_the_same_ids(build, tiny):
    benchmark = build()
    one, other = (benchmark.examples(tiny.prompts, seed=seed) for seed in (0, 1))
    assert [example.id for example in one] == [example.id for example in other]
    if benchmark.name == "gpqa":
        assert all(
            mine.question != theirs.question for mine, theirs in zip(one, other, strict=True)
        )
    elif benchmark.samples is not None and benchmark.name not in PUBLISHED:
        assert all(mine.context != theirs.context for mine, theirs in zip(one, other, strict=True))
    else:
        assert one == other


def test_a_limit_keeps_the_proportions_of_the_tasks(build, tiny):
    everything = build("subset=null").examples(tiny.prompts, seed=0)
    sizes = Counter(example.task for example in everything)
    for limit in (1, len(everything) // 2, len(everything), len(everything) + 5):
        limited = build("subset=null", f"limit={limit}").examples(tiny.prompts, seed=0)
        assert len(limited) == min(limit, len(everything))
        # A subsequence of all examples.
        remaining = iter(everything)
        assert all(example in remaining for example in limited)
        for task, count in Counter(example.task for example in limited).items():
            assert abs(count - len(limited) * sizes[task] / len(everything)) < 1


def test_the_subsets_are_a_partition_of_the_examples(build, tiny):
    everything = build("subset=null").examples(tiny.prompts, seed=0)
    alone = []
    for subset in build("subset=null").available_subsets():
        examples = build(f"subset={subset}").examples(tiny.prompts, seed=0)
        assert {example.task for example in examples} == {subset}
        alone.extend(examples)
    by_id = {example.id: example for example in alone}
    assert len(by_id) == len(alone)
    assert by_id == {example.id: example for example in everything}


def test_available_subsets_are_known_subsets_in_the_same_order(build):
    benchmark = build("subset=null")
    available = benchmark.available_subsets()
    assert available
    assert [name for name in benchmark.subsets() if name in available] == list(available)


def test_an_unknown_subset_is_refused_with_the_list_of_subsets(build):
    benchmark = build()
    config = config_of(benchmark.name)
    settings = {key: value for key, value in config.items() if key not in ("_target_", "subset")}
    with pytest.raises(ConfigurationError, match="no-such-subset") as caught:
        get_class(config._target_)(**settings, subset="no-such-subset")
    for subset in benchmark.subsets():
        assert subset in str(caught.value)


def test_a_limit_below_one_is_refused(build):
    for limit in (0, -1):
        with pytest.raises(Exception, match=rf"benchmark\.limit must be at least 1, got {limit}"):
            build(f"limit={limit}")


def test_scores_are_in_the_order_of_the_examples_and_between_0_and_1(build, tiny, predict):
    benchmark = build("subset=null")
    examples = benchmark.examples(tiny.prompts, seed=0)
    texts = {example.id: "Otto 123" if n % 2 else "" for n, example in enumerate(examples)}
    scores = benchmark.score(examples, predict(examples, lambda example: texts[example.id]))
    assert [(score.example_id, score.task) for score in scores] == [
        (example.id, example.task) for example in examples
    ]
    assert all(score.score is None or 0 <= score.score <= 1 for score in scores)


@pytest.mark.parametrize("build", OWN, indirect=True)
def test_answers_equal_to_the_references_score_1(build, tiny, predict):
    benchmark = build("subset=null")
    examples = benchmark.examples(tiny.prompts, seed=0)
    answers = predict(examples, lambda example: ", ".join(example.references))
    assert [score.score for score in benchmark.score(examples, answers)] == [1.0] * len(examples)


@pytest.mark.parametrize("build", OWN, indirect=True)
def test_empty_answers_score_0(build, tiny, predict):
    benchmark = build("subset=null")
    examples = benchmark.examples(tiny.prompts, seed=0)
    answers = predict(examples, lambda example: "")
    assert [score.score for score in benchmark.score(examples, answers)] == [0.0] * len(examples)


def test_a_missing_answer_is_an_error(build, tiny, predict):
    benchmark = build()
    examples = benchmark.examples(tiny.prompts, seed=0)
    with pytest.raises(ValueError, match="shorter"):
        benchmark.score(examples, predict(examples[:-1], lambda example: ""))
