"""benchmark.subset='*' makes a cell of every subset."""

import pytest

from sah.benchmarks.factbook import Factbook
from sah.benchmarks.ruler import Ruler
from sah.errors import ConfigurationError
from sah.launching.composer import Composer
from sah.launching.subsets import expand_subsets


@pytest.fixture
def composer(hydra_loader):
    return Composer(*hydra_loader)


@pytest.mark.parametrize("star", ["*", "'*'", '"*"'])
def test_every_benchmark_gets_a_cell_for_each_of_its_subsets(composer, star):
    jobs = [
        [f"benchmark={name}", f"benchmark.subset={star}", "seed=1"]
        for name in ("factbook", "ruler")
    ]
    expected = [
        [f"benchmark={name}", f"benchmark.subset={subset}", "seed=1"]
        for name, subsets in (
            ("factbook", Factbook().available_subsets()),
            ("ruler", Ruler().available_subsets()),
        )
        for subset in subsets
    ]
    assert expand_subsets(jobs, composer) == expected


def test_the_sources_of_a_benchmark_decide_which_subsets_it_has(composer):
    job = ["benchmark=ruler", "benchmark.subset=*", "benchmark.squad=a", "benchmark.hotpotqa=b"]
    subsets = [made[1] for made in expand_subsets([job], composer)]
    assert "benchmark.subset=qa_1" in subsets
    assert "benchmark.subset=qa_factbook" not in subsets


def test_other_jobs_are_unchanged(composer):
    jobs = [["benchmark=mock", "seed=1"], ["benchmark.subset=vt"], ["benchmark.subset=null"]]
    assert expand_subsets(jobs, composer) == jobs


def test_subset_names_that_yaml_would_misread_compose(composer):
    jobs = expand_subsets([["benchmark=longbench", "benchmark.subset=*"]], composer)
    names = [composer.compose(job).benchmark.subset for job in jobs]
    assert {"2wikimqa", "repobench-p", "qasper_e"} <= set(names)
    assert len(names) == 34


def test_in_a_single_run_the_error_asks_for_a_sweep():
    with pytest.raises(ConfigurationError, match=r"subset='\*' makes one cell of a sweep.*-m"):
        Ruler(subset="*")
