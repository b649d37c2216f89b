"""Composing and planning a sweep: the same as Hydra composes, and nothing twice."""

import itertools
import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf

from sah.launching.composer import Composer
from sah.launching.composition_memory import CompositionMemory
from sah.launching.plan import SweepPlan, plan_sweep
from sah.results.schema import to_document
from sah.results.stored_lines import digest


@pytest.fixture
def complete(make_result):
    """Write the result of an experiment."""

    def write(directory: Path) -> None:
        os.makedirs(directory)
        empty = {"n": 0, "score": None, "scores_digest": digest(b"")}
        result = make_result(directory=directory, fingerprint=directory.name, **empty)
        (directory / "scores.jsonl").write_bytes(b"")
        (directory / "results.json").write_bytes(orjson.dumps(to_document(result)))

    return write


@pytest.fixture
def composed(monkeypatch):
    """The overrides of every composition, in order."""
    calls: list[tuple[str, ...]] = []
    original = Composer.compose

    def compose(self: Composer, overrides: tuple[str, ...]) -> Any:
        calls.append(overrides)
        return original(self, overrides)

    monkeypatch.setattr(Composer, "compose", compose)
    return calls


@pytest.fixture
def plan(hydra_loader, tmp_path):
    """Plan a sweep over tiny and mock with results below tmp_path."""
    loader, master = hydra_loader

    def call(*jobs: list[str], sources: tuple[Path, ...] = ()) -> SweepPlan:
        memory = CompositionMemory(tmp_path / "composed.json", sources, [])
        base = ["model=tiny", "benchmark=mock", f"output_root={tmp_path}"]
        made = plan_sweep([base + job for job in jobs], Composer(loader, master), memory)
        memory.save()
        return made

    return call


def test_composes_the_same_as_hydra(hydra_loader):
    loader, master = hydra_loader
    composer = Composer(loader, master)
    choices = [
        ["model=tiny", "model=llama"],
        ["attention=dense", "attention=sparse", "sparse_attention=streaming_llm"],
        ["seed=1", "generation.temperature=0.5", "+model.extra={a: 1}", "benchmark.limit=null"],
        ["benchmark=mock", "benchmark=ruler", "hydra.job.name=other"],
    ]
    special = [
        ["~sparse_attention.maskers.sink"],
        ["+masker@sparse_attention.maskers.tail=random_sampling", "seed=3"],
        ["masker@sparse_attention.maskers.local=causal"],
        ["sparse_attention.maskers.local.tokens=9", "attention=sparse"],
    ]
    for overrides in [*map(list, itertools.product(*choices)), *special]:
        expected = loader.load_sweep_config(master, overrides)
        assert OmegaConf.to_container(composer.compose(overrides)) == OmegaConf.to_container(
            expected
        ), overrides


@pytest.mark.parametrize(
    ("overrides", "processes"),
    [
        (["model=llama"], 2),
        (["model=llama", "model.tensor_parallel=1"], 1),
        (["model=llama", "model.device=cpu"], None),
        (["model=llama", "+model.model_kwargs.device_map=auto"], None),
    ],
)
def test_a_job_with_two_gpus_splits_a_model_that_is_not_placed_otherwise(
    hydra_loader, overrides, processes
):
    loader, _ = hydra_loader
    master = loader.load_configuration(
        "config", ["hydra.launcher.gpus_per_job=2"], RunMode.MULTIRUN, from_shell=False
    )
    config = Composer(loader, master).compose(overrides)
    assert config.model.tensor_parallel == processes
    # Another composition from what is stored gives the same experiment.
    stored = list(config.hydra.overrides.task)
    assert stored == overrides + ["model.tensor_parallel=2"] * (processes == 2)


def test_a_model_without_the_key_is_composed_for_two_gpus(hydra_loader):
    loader, _ = hydra_loader
    master = loader.load_configuration(
        "config", ["hydra.launcher.gpus_per_job=2"], RunMode.MULTIRUN, from_shell=False
    )
    assert "tensor_parallel" not in Composer(loader, master).compose(["model=tiny"]).model


def test_composed_cells_are_independent(hydra_loader):
    composer = Composer(*hydra_loader)
    first = composer.compose(["model=tiny", "seed=1"])
    second = composer.compose(["model=tiny", "seed=2"])
    assert (first.seed, second.seed) == (1, 2)


def test_an_unknown_key_is_an_error_of_hydra(hydra_loader):
    with pytest.raises(HydraException, match="sead"):
        Composer(*hydra_loader).compose(["sead=1"])


def test_two_spellings_of_one_experiment_run_once(plan):
    made = plan(["seed=1"], ["seed=1", "generation.temperature=0"], ["seed=2"])
    assert [cell.number for cell in made.pending] == [0, 2]
    assert [cell.number for cell in made.repeated] == [1]


def test_a_cell_keeps_its_whole_configuration_in_a_kilobyte(plan, hydra_loader, tmp_path):
    jobs = [["seed=1"], ["attention=quest", "seed=2"], ["attention=dense", "seed=3"]]
    made = plan(*jobs)
    base = ["model=tiny", "benchmark=mock", f"output_root={tmp_path}"]
    for cell, job in zip(made.pending, jobs, strict=True):
        assert cell.config == Composer(*hydra_loader).compose((*base, *job))
        assert cell.packed_config.dictionary is made.pending[0].packed_config.dictionary
        assert len(cell.packed_config.content) < 2000


def test_every_invalid_cell_is_listed(plan):
    made = plan(["benchmark.limit=0"], ["seed=1"], ["seed=x"], ["nope=1"])
    assert made.refused == 3
    message = made.describe_problems()
    assert "\n    benchmark: mock: benchmark.limit must be at least 1, got 0" in message
    assert "  seed=x\n    seed must be a whole number, got 'x'" in message
    assert "  nope=1\n    nope is not a key of the configuration; choose from attention," in message


def test_a_mistake_that_cells_share_is_told_once_with_what_they_have_in_common(plan):
    limits = ("benchmark.limit=1", "benchmark.limit=0")
    made = plan(*[[f"seed={seed}", limit] for seed in (1, 2, 3) for limit in limits])
    assert made.refused == 3
    assert made.describe_problems() == (
        "  benchmark.limit=0 (3 experiments)\n"
        "    benchmark: mock: benchmark.limit must be at least 1, got 0"
    )


@pytest.mark.parametrize("typo", ["benchmark.limt", "atention"])
def test_a_misspelt_key_is_told_once_whatever_its_values(plan, typo):
    made = plan(*[[f"seed={seed}", f"{typo}={value}"] for seed in (1, 2) for value in (3, 4)])
    assert made.refused == 4
    message = made.describe_problems()
    assert message.count(f"{typo} is not a key of the configuration; did you mean") == 1
    assert message.startswith("  model=tiny")


def test_two_different_mistakes_are_both_told(plan):
    made = plan(["seed=x"], ["seed=1"], ["benchmark.limit=0"], ["seed=x", "benchmark.limit=1"])
    assert made.refused == 3
    message = made.describe_problems()
    assert "  seed=x (2 experiments)\n    seed must be" in message
    assert "  benchmark.limit=0\n    benchmark: mock" in message


def test_a_finished_cell_is_not_composed_again(plan, composed, complete):
    complete(plan(["seed=1"]).pending[0].directory)
    composed.clear()
    made = plan(["seed=1"], ["seed=2"])
    assert [call[-1] for call in composed] == ["seed=2"]
    assert [cell.number for cell in made.finished] == [0]
    assert [cell.number for cell in made.pending] == [1]


def test_a_deleted_result_is_computed_again(plan, complete):
    directory = plan(["seed=1"]).pending[0].directory
    complete(directory)
    assert plan(["seed=1"]).finished
    (directory / "results.json").unlink()
    assert plan(["seed=1"]).pending


def test_a_changed_configuration_file_is_composed_again(plan, composed, tmp_path, complete):
    source = tmp_path / "conf"
    source.mkdir()
    (source / "a.yaml").write_text("a: 1\n")
    complete(plan(["seed=1"], sources=(source,)).pending[0].directory)
    assert plan(["seed=1"], sources=(source,)).finished
    assert len(composed) == 1
    (source / "a.yaml").write_text("a: 2\n")
    assert plan(["seed=1"], sources=(source,)).finished
    assert len(composed) == 2


def test_a_configuration_that_reads_the_environment_is_always_composed(
    plan, composed, tmp_path, complete
):
    source = tmp_path / "conf"
    source.mkdir()
    (source / "a.yaml").write_text("a: ${oc.env:HOME}\n")
    complete(plan(["seed=1"], sources=(source,)).pending[0].directory)
    assert plan(["seed=1"], sources=(source,)).finished
    assert len(composed) == 2


def test_a_finished_cell_is_composed_again_if_a_file_that_it_reads_has_changed(
    plan, complete, composed, tmp_path
):
    data = tmp_path / "my.jsonl"
    data.write_text('{"context": "c", "question": "q", "references": "r"}\n')
    cell = ["benchmark=jsonl", f"benchmark.path={data}"]
    complete(plan(cell).pending[0].directory)
    assert plan(cell).finished
    assert len(composed) == 1
    data.write_text('{"context": "c", "question": "q", "references": "s"}\n')
    assert plan(cell).pending
    assert len(composed) == 2


def test_resume_false_runs_finished_cells_again(plan, complete):
    complete(plan(["seed=1"]).pending[0].directory)
    assert plan(["seed=1", "resume=false"]).pending
    assert plan(["seed=1", "resume=false"]).pending


def test_an_unusable_memory_recognises_nothing(tmp_path, complete):
    directory = tmp_path / "0123456789ab"
    complete(directory)
    for usable in (True, False):
        memory = CompositionMemory(tmp_path / "composed.json", [], [], usable=usable)
        memory.remember(("seed=1",), directory, [])
        memory.save()
        again = CompositionMemory(tmp_path / "composed.json", [], [], usable=usable)
        assert again.finished_directory(("seed=1",)) == (directory if usable else None)
