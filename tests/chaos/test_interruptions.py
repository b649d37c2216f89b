"""Runs stopped at any moment, by any signal and repeatedly, resume to the same results."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from sah.results.claim import read_claim

# Sampled answers and all metrics, so that any dependence on earlier state shows.
COMMON = ("model=tiny", "benchmark=mock", "metric_logging=full", "generation.temperature=0.8")
ATTENTIONS = ("dense", "random_sampling")
MATRIX = ("-m", *COMMON, "attention=sparse,random_sampling", "seed=1,2")
SWEEP = (*MATRIX, "hydra.launcher.poll_seconds=0.05", "hydra.launcher.grace_seconds=5")
ANSWERS_OF_SWEEP = 20

START = {
    "single run": {"arguments": (*COMMON, "attention=random_sampling")},
    "bundle": {"arms": tuple((*COMMON, f"attention={name}") for name in ATTENTIONS)},
    # In one process; where a cell runs does not change its answers.
    "sweep": {"arguments": (*MATRIX, "hydra/launcher=basic")},
}


@dataclass(frozen=True)
class Undisturbed:
    outcome: dict
    cpu_seconds: float


def starting(runs, folder, kind, **options):
    how = START[kind]
    return runs.start(folder, *how.get("arguments", ()), arms=how.get("arms", ()), **options)


@pytest.fixture(scope="module")
def undisturbed(runs, outcome, how_far, tmp_path_factory):
    """The outcome and the CPU time of each kind of run without interruption."""
    known = {}

    def look(kind):
        if kind not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            process = starting(runs, folder, kind, log=folder / "log")
            # Only waits: CPU time must be read before the exit status.
            runs.stop(process, 0, when=lambda: False)
            seconds = how_far(process)
            assert runs.wait(process) == 0, (folder / "log").read_text()
            known[kind] = Undisturbed(outcome(folder), seconds)
        return known[kind]

    return look


@pytest.mark.parametrize("kind", ["single run", "bundle"])
def test_a_stopped_run_goes_on_to_the_results_of_an_undisturbed_one(
    kind, moment, number, drawing, runs, undisturbed, outcome, answered, how_far, tmp_path
):
    expected = undisturbed(kind)
    for _ in range(drawing.randint(1, 2)):
        process = starting(runs, tmp_path, kind)
        when = drawing.uniform(0, expected.cpu_seconds)
        runs.stop(process, number, when=lambda p=process, w=when: how_far(p) >= w)
        runs.wait(process)
    before = answered(tmp_path)
    log = tmp_path / "log"
    assert runs.wait(starting(runs, tmp_path, kind, log=log)) == 0, log.read_text()
    assert outcome(tmp_path) == expected.outcome
    for path, lines in before.items():
        # Times included: no example is answered twice.
        assert path.read_bytes().startswith(lines)


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_to_the_results_of_an_undisturbed_one(
    moment, number, drawing, runs, undisturbed, outcome, answered, tmp_path
):
    expected = undisturbed("sweep").outcome
    victim = drawing.choice(["sweep", "job"])
    count = drawing.randrange(ANSWERS_OF_SWEEP)
    process = runs.start(tmp_path, *SWEEP)

    def enough():
        return sum(text.count(b"\n") for text in answered(tmp_path).values()) >= count and (
            victim == "sweep" or bool(jobs(tmp_path))
        )

    if runs.stop(process, 0, when=enough, look_every_seconds=0.01):
        # If the job has ended since the look, the signal goes to the sweep.
        target = jobs(tmp_path)[0] if victim == "job" and jobs(tmp_path) else process
        os.kill(target, number)
    runs.wait(process)
    before = answered(tmp_path)
    # The next sweep leaves a job alone that outlives its sweep for a moment.
    for attempt in range(4):
        log = tmp_path / f"log{attempt}"
        assert runs.run(tmp_path, *SWEEP, log=log) == 0, log.read_text()
        if outcome(tmp_path).keys() == expected.keys():
            break
    assert outcome(tmp_path) == expected
    for path, lines in before.items():
        assert path.read_bytes().startswith(lines)


def jobs(root: Path) -> list[int]:
    """Return the processes that hold a claim and are alive."""
    claims = [read_claim(path.parent) for path in root.glob("outputs/*/*/*/*/.claim")]
    return [claim.pid for claim in claims if claim is not None and claim.alive]
