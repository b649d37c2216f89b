"""A model that stays loaded gives the results of one that is loaded for each experiment."""

from pathlib import Path

import pytest

from sah.execution.attempts import compute_arms
from sah.models.loading.kept_model import KeptModel
from sah.models.tiny import TinyModel
from sah.results import directory
from sah.results.identity import model_key

TINY = ("model=tiny", "benchmark=mock", "metric_logging=full", "generation.temperature=0.8")
BUNDLES = (
    (("attention=snapkv",), ("attention=quest",)),
    (("attention=random_sampling", "seed=1"),),
)


@pytest.fixture
def loads(calls):
    return calls(TinyModel, "load")


@pytest.fixture
def outcomes(configure, outcome):
    """Compute bundles one after the other; return what each experiment left, by directory."""

    def compute(models, root):
        found = {}
        for bundle in BUNDLES:
            configs = [configure(*TINY, *arm, root=root) for arm in bundle]
            compute_arms([(config, []) for config in configs], models())
            for folder in map(directory, configs):
                found[Path(*folder.parts[-4:])] = outcome(folder)
        return found

    return compute


def test_bundles_after_the_first_give_the_same_results_without_loading(outcomes, loads):
    kept = KeptModel()
    together = outcomes(lambda: kept, "kept")
    assert len(loads) == 1
    apart = outcomes(KeptModel, "apart")
    assert len(loads) == 1 + len(BUNDLES)
    assert together == apart


def test_another_model_is_loaded_and_the_first_one_freed(configure, calls):
    kept = KeptModel()
    one, other = (configure("model=tiny", f"model.weight_seed={seed}") for seed in (1, 2))
    first = kept.load(TinyModel(weight_seed=1), model_key(one))
    freed = calls(KeptModel, "forget")
    assert kept.load(TinyModel(weight_seed=2), model_key(other)) is not first
    assert len(freed) == 1


def test_a_second_attempt_loads_its_own_model(configure, loads, calls):
    """What failed may have left the model in any state."""
    calls(TinyModel, "prompts", raise_at=2, error=ConnectionResetError("gone"))
    config = configure(*TINY, "retries=1")
    kept = KeptModel()
    (first,) = compute_arms([(config, [])], kept)
    assert first.error is None
    assert len(loads) == 2


def test_the_peak_memory_of_every_bundle_includes_loading():
    kept = KeptModel()
    assert kept.with_loading(500) == 500
    assert kept.with_loading(300) == 500
    assert kept.with_loading(700) == 700
    assert kept.with_loading(300) == 500


def test_models_are_the_same_by_their_content(compose, tmp_path):
    for name in ("here", "there", "other"):
        folder = tmp_path / name / "model"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"a": 1}' if name != "other" else '{"a": 2}')
    here, there, other = (
        model_key(compose("model=hf", f"model.name_or_path={tmp_path / name / 'model'}"))
        for name in ("here", "there", "other")
    )
    assert here == there != other
