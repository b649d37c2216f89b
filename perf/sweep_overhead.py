"""Measure what a sweep costs beside its work: planning, compared with stock Hydra, and processes.

    python perf/sweep_overhead.py [--new 1000] [--finished 10000] [--stock 50] [--cells 8]
        [--model tiny]

Prints

- the seconds from the end of one cell to the end of the next of the same model in a local sweep,
  without those of its prefill and decode, with the model kept and with a process for each cell
  (--cells 0 leaves this out);
- milliseconds per new cell for planning (composing, identity, checks) and for stock Hydra's sweeper
  and launcher around an empty task, their ratio, and the wall time of `python run.py -m ...` over a
  finished matrix, the first time and again (--new 0 leaves this out).
"""

import argparse
import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

import orjson
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from sah.launching.composer import Composer
from sah.launching.composition_memory import CompositionMemory
from sah.launching.plan import plan_sweep
from sah.results.aggregate import summarise
from sah.results.schema import Provenance, Result, to_document
from sah.results.stored_lines import digest, scores_content
from sah.types import Prediction, Score

ROOT = Path(__file__).resolve().parent.parent
BASE = ["model=tiny", "benchmark=mock"]

STOCK = """
import sys
import hydra
@hydra.main(version_base="1.3", config_path={conf!r}, config_name="config")
def main(config):
    return 0.0
main()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--new", type=int, default=1000)
    parser.add_argument("--finished", type=int, default=10_000)
    parser.add_argument("--stock", type=int, default=50)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--model", default="tiny")
    arguments = parser.parse_args()
    for keeps in (True, False) if arguments.cells else ():
        with tempfile.TemporaryDirectory() as folder:
            beside = seconds_beside_work(arguments.cells, arguments.model, keeps, Path(folder))
        how = "model kept" if keeps else "a process for each cell"
        shown = f"{statistics.median(beside):.2f} s, {min(beside):.2f} to {max(beside):.2f}"
        print(f"next cell, {how:<24}{shown}   (of {len(beside)})", flush=True)
    if not arguments.new:
        return
    with tempfile.TemporaryDirectory() as folder:
        ours = planning_seconds(arguments.new, Path(folder)) / arguments.new
        stock = stock_seconds(arguments.stock, Path(folder)) / arguments.stock
        print(f"planning a new cell      {1000 * ours:7.1f} ms   (of {arguments.new})")
        print(f"stock sweeper, launcher  {1000 * stock:7.1f} ms   (of {arguments.stock})")
        print(f"stock / ours             {stock / ours:7.1f}")
        first, again = finished_seconds(arguments.finished, Path(folder))
        print(f"{arguments.finished} finished cells, first time {first:7.1f} s")
        print(f"{arguments.finished} finished cells, again      {again:7.1f} s")
        print(f"first / again                    {first / again:7.1f}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"peak memory of a sweep's process {peak:7.0f} MiB")


def seconds_beside_work(cells: int, model: str, keeps_model: bool, folder: Path) -> list[float]:
    """Measure the time between the ends of cells, without that of their answers."""
    command = [sys.executable, str(ROOT / "run.py"), "-m", f"model={model}", "benchmark=mock"]
    command += [seeds(cells + 1), f"hydra.launcher.keep_model={str(keeps_model).lower()}"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    results = [
        orjson.loads(path.read_bytes()) for path in folder.glob("outputs/*/*/*/*/results.json")
    ]
    ends = sorted(
        (datetime.fromisoformat(result["provenance"]["finished"]), answer_seconds(result["timing"]))
        for result in results
    )
    return [
        (end - before).total_seconds() - work
        for (before, _), (end, work) in itertools.pairwise(ends)
    ]


def answer_seconds(timing: dict[str, float]) -> float:
    return timing["prefill_seconds"] + timing["decode_seconds"]


def seeds(count: int) -> str:
    return f"seed=range({count})"


def planning_seconds(count: int, folder: Path) -> float:
    """Measure planning of new cells."""
    jobs = [[*BASE, f"output_root={folder}/new", f"seed={seed}"] for seed in range(count)]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [], RunMode.MULTIRUN, from_shell=False)
        memory = CompositionMemory(folder / "composed.json", [], [])
        # The first cell imports torch.
        plan_sweep(jobs[:1], Composer(loader, master), memory)
        started = time.perf_counter()
        plan = plan_sweep(jobs, Composer(loader, master), memory)
        seconds = time.perf_counter() - started
    assert len(plan.pending) == count, plan.problems[:1]
    return seconds


def stock_seconds(count: int, folder: Path) -> float:
    """Measure stock Hydra, without the start of the program."""
    script = folder / "stock.py"
    script.write_text(STOCK.format(conf=str(ROOT / "conf")))
    options = ["hydra/sweeper=basic", "hydra/launcher=basic", "~hydra.callbacks.resume"]

    def run(cells: int) -> float:
        started = time.perf_counter()
        command = [sys.executable, script, "-m", *options, *BASE, seeds(cells)]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - started

    return run(count + 1) - run(1)


SCORE = Score(example_id="0", task="mock", score=0.0)
SCORES = scores_content([SCORE])


def synthetic_result(directory: Path) -> Result:
    prediction = Prediction(
        example_id="0",
        task="mock",
        text="",
        input_hash="",
        finish_reason="eos",
        context_tokens=100,
        question_tokens=10,
        new_tokens=1,
        prefill_seconds=1.0,
        decode_seconds=1.0,
        density=1.0,
    )
    return Result(
        directory=directory,
        fingerprint=directory.name,
        model="tiny",
        attention="sparse",
        benchmark="mock",
        subset=None,
        protocol="default",
        cache_bytes_per_token=None,
        scores_digest=digest(SCORES),
        **vars(summarise([prediction], [SCORE], load_seconds=0.0)),
        provenance=Provenance(),
        config={},
    )


def finished_seconds(count: int, folder: Path) -> tuple[float, float]:
    """Measure a sweep over finished cells: composed the first time, remembered the second."""
    jobs = [[*BASE, f"output_root={folder}/done", f"seed={seed}"] for seed in range(count)]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration("config", [], RunMode.MULTIRUN, from_shell=False)
        plan = plan_sweep(
            jobs, Composer(loader, master), CompositionMemory(folder / "none.json", [], [])
        )
    for cell in plan.pending:
        cell.directory.mkdir(parents=True)
        result = synthetic_result(cell.directory)
        (cell.directory / "scores.jsonl").write_bytes(SCORES)
        (cell.directory / "results.json").write_bytes(orjson.dumps(to_document(result)))

    def run() -> float:
        started = time.perf_counter()
        command = [sys.executable, str(ROOT / "run.py"), "-m", *BASE]
        command += [f"output_root={folder}/done", seeds(count)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        assert f"{count} finished already" in done.stderr, done.stderr
        return time.perf_counter() - started

    return run(), run()


if __name__ == "__main__":
    main()
