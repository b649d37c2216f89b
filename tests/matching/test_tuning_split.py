"""The tuning split of a benchmark has the tasks of the benchmark, and none of its contexts."""

import pytest

from sah.errors import ConfigurationError, DatasetError
from sah.execution.building import build
from sah.matching.tuning_split import TuningSplit, of_config
from sah.results.identity import resolved


@pytest.fixture
def split(compose, tiny):
    """Return the measured examples of some seeds, and those of the tuning split."""

    def make(*overrides, seeds=(0,), contexts=2):
        config = compose("model=tiny", *overrides)
        measured = [
            example
            for seed in seeds
            for example in build(config, "benchmark").examples(tiny.prompts, seed)
        ]
        config.benchmark = of_config(resolved(config.benchmark), seeds=seeds, contexts=contexts)
        benchmark = build(config, "benchmark")
        return measured, benchmark.examples(tiny.prompts, seeds[0])

    return make


@pytest.mark.parametrize(
    "overrides",
    [
        ("benchmark=ruler", "benchmark.subset=[niah_single_1,niah_multikey_1]"),
        ("benchmark=mock", "benchmark.limit=1"),
        ("benchmark=perplexity", "benchmark.context_tokens=600", "benchmark.samples=2"),
    ],
)
def test_no_context_is_on_both_sides(split, overrides):
    measured, tuning = split(*overrides, seeds=(0, 1))
    assert tuning
    assert not {one.context for one in measured} & {one.context for one in tuning}
    assert {one.task for one in measured} == {one.task for one in tuning}


def test_there_are_as_many_contexts_as_asked_of_each_task(split):
    options = ("benchmark=ruler", "benchmark.subset=[niah_single_1,niah_multikey_1]")
    _, tuning = split(*options, "benchmark.samples=1", contexts=3)
    assert [one.task for one in tuning] == ["niah_single_1"] * 3 + ["niah_multikey_1"] * 3


def test_questions_about_one_document_are_on_the_same_side(split, tmp_path):
    rows = [
        f'{{"context": "document {document}", "question": "{question}?", "references": ["x"]}}'
        for document in range(4)
        for question in range(3)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(rows))
    measured, tuning = split("benchmark=jsonl", f"benchmark.path={path}", "benchmark.limit=2")
    assert len({one.context for one in tuning}) == 2
    assert len(tuning) == 6
    assert not {one.context for one in measured} & {one.context for one in tuning}


def test_a_data_set_that_is_measured_as_a_whole_is_refused(split):
    with pytest.raises(DatasetError, match=r"'mock' has no context .* left .*set benchmark\.limit"):
        split("benchmark=mock")


def test_a_benchmark_without_the_base_class_is_refused():
    with pytest.raises(ConfigurationError, match="object does not derive from BaseBenchmark"):
        TuningSplit(name="own", of=object(), seeds=[0])
