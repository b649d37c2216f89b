"""Measure how a sweep scales with its cells, and the file of micro metrics with its records.

    python perf/scale.py [--cells 1000,10000] [--examples 1000] [--layers 32]

Sweeps the mock benchmark on the tiny model over at most 100 attentions and as many seeds as
needed. Prints for each number of cells the wall time of the sweep, of the same command again, of
`sah status` and of `sah report`, the peak memory of the sweep's process without its jobs, and the
disk space. Then answers examples with metric_logging off, default (a tenth of the micro metrics)
and full, and prints wall time, records and the size of micro_metrics.jsonl.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import orjson

ROOT = Path(__file__).resolve().parent.parent
ATTENTIONS = 100
BASE = ("model=tiny", "benchmark=mock", "benchmark.max_new_tokens=2")


class Run(NamedTuple):
    """Time and memory of a command."""

    seconds: float
    peak_mib: float
    """Without child processes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", default="1000,10000")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    print(
        f"{'cells':>7} {'sweep':>9} {'a cell':>8} {'again':>7} {'status':>7} {'report':>7} "
        f"{'peak memory':>12} {'disk':>9}"
    )
    for cells in (int(number) for number in arguments.cells.split(",") if number):
        with tempfile.TemporaryDirectory() as folder:
            print_sweep(cells, Path(folder), arguments.workers)
    if arguments.examples:
        print(f"\n{arguments.examples} examples, {arguments.layers} layers")
        print(f"{'metric_logging':>15} {'wall':>9} {'records':>10} {'size':>10} {'a record':>9}")
        for logging in ("off", "default", "full"):
            with tempfile.TemporaryDirectory() as folder:
                print_metrics(logging, arguments.examples, arguments.layers, Path(folder))


def print_sweep(cells: int, folder: Path, workers: int) -> None:
    """Sweep a matrix of this many cells and print a row."""
    attentions = min(ATTENTIONS, cells)
    budgets = ",".join(str(budget) for budget in range(16, 16 + attentions))
    sweep = (
        *("run.py", "-m", *BASE, "attention=sparse", "metric_logging=off"),
        f"sparse_attention.maskers.local.tokens={budgets}",
        f"seed=range({cells // attentions})",
        *(f"hydra.launcher.cpu_workers={workers}", f"output_root={folder}/outputs"),
    )
    first = run(sweep, folder / "first.log")
    assert f"{cells} done" in (folder / "first.log").read_text(), "see the log of the sweep"
    again = run(sweep, folder / "again.log")
    assert f"{cells} finished already" in (folder / "again.log").read_text()
    program = ("-c", "from sah.cli.main import main; main()")
    status = run((*program, "status", f"{folder}/outputs"), folder / "status.log")
    report = run((*program, "report", f"{folder}/outputs"), folder / "report.log")
    peak = max(first.peak_mib, again.peak_mib)
    print(
        f"{cells:>7} {first.seconds:>7.0f} s {1000 * first.seconds / cells:>5.0f} ms "
        f"{again.seconds:>5.1f} s {status.seconds:>5.1f} s {report.seconds:>5.1f} s "
        f"{peak:>8.0f} MiB {disk_mib(folder / 'outputs'):>5.0f} MiB",
        flush=True,
    )


def print_metrics(logging: str, examples: int, layers: int, folder: Path) -> None:
    """Answer examples with a metric_logging option and print a row."""
    path = folder / "examples.jsonl"
    text = "The grass is green and the sky is blue. " * 4
    with open(path, "wb") as file:
        for number in range(examples):
            row = {"context": f"{number // 100}: {text}", "question": f"\n{number}?"}
            line = {**row, "id": str(number), "references": ["x"], "max_new_tokens": 8}
            file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
    command = (
        *("run.py", "model=tiny", f"model.layers={layers}", "attention=sparse"),
        *("benchmark=jsonl", f"benchmark.path={path}", f"metric_logging={logging}"),
        *("metric_logging.max_records=null", f"output_root={folder}/outputs"),
    )
    done = run(command, folder / "log")
    (results,) = folder.glob("outputs/*/*/*/*/results.json")
    found = results.parent / "micro_metrics.jsonl"
    content = found.read_bytes() if found.exists() else b""
    records, size = content.count(b"\n"), len(content)
    print(
        f"{logging:>15} {done.seconds:>7.0f} s {records:>10,} {size / 2**20:>6.1f} MiB "
        f"{size / max(1, records):>7.0f} B",
        flush=True,
    )


def run(arguments: tuple[str, ...], log: Path) -> Run:
    """Run a command and watch its memory."""
    started, peak = time.perf_counter(), 0.0
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
        while process.poll() is None:
            peak = max(peak, peak_mib(process.pid))
            time.sleep(0.1)
    assert process.returncode == 0, log.read_text()[-2000:]
    return Run(time.perf_counter() - started, peak)


def peak_mib(process: int) -> float:
    """Read the peak memory of a process from the kernel; 0 if it has ended."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def disk_mib(folder: Path) -> float:
    """Return the disk space of all files, in whole blocks."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*")) / 2**20


if __name__ == "__main__":
    main()
