"""benchmark.subset='*' in a sweep."""

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
def test_every_benchmark_has_a_cell_for_each_of_its_own_subsets(composer, star):
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


def test_what_the_benchmark_is_made_of_decides_which_subsets_there_are(composer):
    job = ["benchmark=ruler", "benchmark.subset=*", "benchmark.squad=a", "benchmark.hotpotqa=b"]
    subsets = [made[1] for made in expand_subsets([job], composer)]
    assert "benchmark.subset=qa_1" in subsets
    assert "benchmark.subset=qa_factbook" not in subsets


def test_jobs_that_do_not_ask_stay_as_they_are(composer):
    jobs = [["benchmark=mock", "seed=1"], ["benchmark.subset=vt"], ["benchmark.subset=null"]]
    assert expand_subsets(jobs, composer) == jobs


def test_names_that_are_no_yaml_words_compose(composer):
    jobs = expand_subsets([["benchmark=longbench", "benchmark.subset=*"]], composer)
    names = [composer.compose(job).benchmark.subset for job in jobs]
    assert {"2wikimqa", "repobench-p", "qasper_e"} <= set(names)
    assert len(names) == 34


def test_in_a_single_run_the_error_says_what_to_do():
    with pytest.raises(ConfigurationError, match=r"subset='\*' makes one cell of a sweep.*-m"):
        Ruler(subset="*")
