"""Attentions matched on the tiny model: what is computed, saved, refused, and measured after."""

import logging

import pytest
from omegaconf import OmegaConf

from sah.errors import ConfigurationError
from sah.execution.attempts import compute, compute_arms
from sah.execution.building import compose
from sah.matching.matched_presets import save
from sah.matching.matching import Target, match
from sah.models.language_model import LanguageModel
from sah.models.tiny import TinyModel
from sah.results import ResultStore
from sah.results.show import show_result

RULER = (
    *("model=tiny", "benchmark=ruler", "benchmark.samples=1", "benchmark.context_tokens=500"),
    "generation.max_new_tokens=2",
)


@pytest.fixture
def matched(tmp_path):
    """Match attentions to a target on RULER, with results in tmp_path/outputs."""

    def run(
        target,
        *attentions,
        tolerance=0.02,
        seeds=(0,),
        overrides=RULER,
        budgets=None,
    ):
        metric, value = target.split("=")
        return match(
            attentions,
            [*overrides, f"output_root={tmp_path / 'outputs'}"],
            Target(metric=metric, value=float(value), tolerance=tolerance, contexts=1),
            seeds=seeds,
            budgets=budgets or {},
        )

    return run


def results_below(folder):
    return sorted(folder.rglob("results.json"))


def test_different_attentions_read_the_same(matched, calls):
    prefills = calls(LanguageModel, "prefill")
    found = matched("rows_read=0.3", "random_sampling", "sparse", "knorm")
    for one in found:
        assert one.search.is_met
        assert one.result.rows_read == pytest.approx(0.3, rel=0.02)
    # All attentions of a step share one prefill.
    assert len(prefills) == max(one.search.evaluations for one in found)
    assert len({one.search.best for one in found}) == 3


def test_a_finished_search_computes_nothing_again(matched, calls, tmp_path):
    first = matched("rows_read=0.3", "sparse", "knorm")
    loads = calls(TinyModel, "load")
    again = matched("rows_read=0.3", "sparse", "knorm")
    assert not loads
    assert [one.search.measured for one in again] == [one.search.measured for one in first]
    # Everything is in the hidden folder, which reports do not read.
    assert set((tmp_path / "outputs").iterdir()) == {tmp_path / "outputs" / ".tuning"}


def test_an_interrupted_search_goes_on(matched, calls):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sah.matching.search.MOST_EVALUATIONS", 1)
        matched("rows_read=0.3", "sparse")
    loads = calls(TinyModel, "load")
    (again,) = matched("rows_read=0.3", "sparse")
    assert again.search.is_met
    assert len(loads) == again.search.evaluations - 1


@pytest.fixture
def measured(matched, tmp_path):
    """Match one attention, save its preset, and compute it on the measured examples."""

    def run(target, attention, *changes, **options):
        found = matched(target, attention, **options)
        metric, value = target.split("=")
        paths = save(
            found,
            Target(metric=metric, value=float(value), tolerance=0.02, contexts=1),
            tmp_path / "studies",
        )
        (path,) = paths
        config = compose(
            [
                *RULER,
                f"output_root={tmp_path / 'outputs'}",
                f"hydra.searchpath=[{tmp_path / 'studies'}]",
                f"sparse_attention={path.stem}",
                *changes,
            ]
        )
        return path, config

    return run


def test_a_saved_preset_is_an_option_that_measures_as_asked(measured, capsys):
    path, config = measured("resident=0.3", "adakv")
    assert path.name == "adakv@resident-0.3.yaml"
    result = compute(config, [])
    assert result.attention == "adakv@resident-0.3"
    assert result.resident == pytest.approx(0.3, rel=0.03)
    assert result.settings["sparse_attention.matched"] == "resident=0.3"
    show_result(result)
    assert "matched to 0.3" in capsys.readouterr().out


def test_contexts_of_the_tuning_split_cannot_be_measured(measured):
    _, config = measured("resident=0.3", "knorm")
    dense = compose([*RULER, f"output_root={config.output_root}", "attention=dense"])
    result = compute(dense, [])
    store = ResultStore(result.directory, result.fingerprint)
    store.load()
    used = [answer.context_hash for answer in store.predictions.values()]
    # As if the contexts of this seed had been tuned on.
    OmegaConf.update(config, "sparse_attention.matched.contexts", used)
    (refused,) = compute_arms([(config, [])])
    assert isinstance(refused.error, ConfigurationError)
    assert "was matched on the context of 1 of these examples" in str(refused.error)


@pytest.mark.parametrize("change", ["model.name=other", "benchmark.name=other"])
def test_a_budget_is_refused_on_another_model_or_benchmark(measured, change):
    _, config = measured("resident=0.3", "knorm", change)
    with pytest.raises(ConfigurationError, match="with model=tiny and benchmark=ruler, not"):
        compute(config, [])


def test_a_preset_keeps_the_variables_of_a_study_as_they_were(matched, tmp_path):
    overrides = (
        *RULER,
        "hydra.searchpath=[experiments]",
        *("+study.share=0.2", "+study.heads=group", "+study.unit=16"),
    )
    found = matched("density=0.3", "of_equal_density/quest", overrides=overrides)
    target = Target(metric="density", value=0.3, tolerance=0.02, contexts=1)
    (path,) = save(found, target, tmp_path)
    quest = OmegaConf.load(path).maskers.quest
    assert (quest.share, quest.unit) == ("group", 16)
    assert quest.fraction == found[0].search.best


def test_a_target_out_of_reach_is_refused_with_the_measured_range(matched, tmp_path):
    think, knorm = matched("resident=0.3", "think", "knorm")
    assert knorm.search.is_met
    assert think.explain("resident").startswith(
        "think cannot measure resident=0.3: think.fraction from 0.0001 to 1 measured 0.53"
    )
    target = Target(metric="resident", value=0.3, tolerance=0.02, contexts=1)
    assert [path.name for path in save([think, knorm], target, tmp_path)] == [
        "knorm@resident-0.3.yaml"
    ]


def test_a_budget_that_the_method_refuses_bounds_the_search(matched):
    options = ("dense_layers=[]", *(f"maskers.quest.{one}" for one in QUEST_IN_TOKENS))
    overrides = (*RULER, *(f"sparse_attention.{one}" for one in options))
    (quest,) = matched("density=0.02", "quest", overrides=overrides)
    assert not quest.search.is_met
    assert "is refused (sparse_attention: Quest: tokens=15 is less" in quest.explain("density")


QUEST_IN_TOKENS = ("fraction=null", "tokens=64", "unit=16")


def test_two_presets_of_one_name_are_refused(matched):
    with pytest.raises(ConfigurationError, match="2 presets with the name knorm"):
        matched("resident=0.3", "knorm", "knorm")


def test_a_budget_of_an_attention_that_is_not_matched_is_refused(matched):
    with pytest.raises(ConfigurationError, match=r"--budget quest=.*give one of knorm"):
        matched("resident=0.3", "knorm", budgets={"quest": "maskers.quest.fraction"})


def test_mistakes_are_refused_before_anything_is_computed(matched, calls):
    loads = calls(TinyModel, "load")
    with pytest.raises(ConfigurationError, match="magic_pig: MagicPIG has no budget"):
        matched("rows_read=0.3", "knorm", "magic_pig")
    with pytest.raises(ConfigurationError, match=r"Could not find .sparse_attention/quset"):
        matched("rows_read=0.3", "knorm", "quset")
    assert not loads


def test_each_evaluation_is_logged(matched, caplog):
    with caplog.at_level(logging.INFO, logger="sah.matching"):
        matched("resident=0.3", "knorm")
    (line,) = [one.getMessage() for one in caplog.records if one.name.startswith("sah.matching")]
    assert line.startswith("knorm: knorm.fraction=0.3 measures resident 0.29")
