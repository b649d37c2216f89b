"""The command line: `sah OVERRIDES` (the same as run.py) and the subcommands."""

import argparse
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from hydra.errors import CompactHydraException, HydraException
from omegaconf import DictConfig

from sah.config_files import config_folders, keys_of, unreadable
from sah.errors import Busy, Interrupted, SahError, category
from sah.paths import config_folder
from sah.terminal import plain

logger = logging.getLogger(__name__)


class ExperimentFailed(CompactHydraException):
    """Ends Hydra with one message instead of a traceback."""


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")
def _hydra_main(config: DictConfig) -> float | None:
    from sah.job import compute
    from sah.progress import quiet_libraries
    from sah.report.table import show_results
    from sah.results.store import ERROR

    overrides = list(HydraConfig.get().overrides.task)
    folder = Path(HydraConfig.get().runtime.output_dir)
    quiet_libraries()
    try:
        results = compute(config, overrides)
    except Exception as error:
        if isinstance(error, Busy):
            raise ExperimentFailed(plain(str(error))) from error
        kind = category(error)
        if kind == "unknown" and not isinstance(error, SahError):
            raise
        details = folder / ERROR
        told = f"\ndetails in {details}" if details.exists() else ""
        raise ExperimentFailed(plain(f"{kind}: {error}{told}")) from error
    show_results(results, folder)
    return None if results["score"] is None else float(results["score"])


def _benchmarks(arguments: list[str]) -> None:
    """List the benchmarks and their subsets."""
    from sah.benchmarks.listing import show_benchmarks

    if arguments:
        sys.exit(f"sah benchmarks takes no arguments, got {arguments}")
    show_benchmarks(config_folder() / "benchmark")


def _status(arguments: list[str]) -> None:
    """Show how the experiments below a folder do."""
    from sah.report.status import show_status, status_json

    parser = argparse.ArgumentParser(prog="sah status", description=_status.__doc__)
    parser.add_argument("outputs", nargs="?", type=Path, default=Path("outputs"))
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    options = parser.parse_args(arguments)
    if options.json:
        sys.stdout.write(status_json(options.outputs) + "\n")
    else:
        show_status(options.outputs)


def _report(arguments: list[str]) -> None:
    """Show results as tables, figures, or one HTML file."""
    from sah.report.command import main

    main(arguments)


def _compare(arguments: list[str]) -> None:
    """Compare results with a baseline, example by example."""
    from sah.report.compare_command import main

    main(arguments)


def _doctor(arguments: list[str]) -> None:
    """Check a model and a benchmark before a sweep."""
    from sah.doctor.command import main

    main(arguments)


def _calibrate(arguments: list[str]) -> None:
    """Fit a method to a model: sah calibrate METHOD model=NAME [KEY=VALUE ...]."""
    _make_file("calibrate", arguments)


def _convert(arguments: list[str]) -> None:
    """Convert published weights: sah convert METHOD FILE model=NAME [output=FILE]."""
    _make_file("convert", arguments)


def _make_file(command: str, arguments: list[str]) -> None:
    usage = str(SUBCOMMANDS[command].__doc__)
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.exit(usage)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("sah").setLevel(logging.INFO)
    from sah.calibration import command as commands
    from sah.progress import quiet_libraries

    quiet_libraries()
    method, *rest = arguments
    try:
        if command == "calibrate":
            commands.calibrate(method, rest)
        else:
            commands.convert(method, rest)
    except SahError as error:
        sys.exit(str(error))


def _fetch(arguments: list[str]) -> None:
    """Download what an experiment will need."""
    from sah.fetching import main

    main(arguments)


def _rescore(arguments: list[str]) -> None:
    """Score answers again without the model."""
    from sah.rescoring import main

    main(arguments)


SUBCOMMANDS: dict[str, Callable[[list[str]], None]] = {
    "benchmarks": _benchmarks,
    "calibrate": _calibrate,
    "compare": _compare,
    "convert": _convert,
    "fetch": _fetch,
    "rescore": _rescore,
    "doctor": _doctor,
    "report": _report,
    "status": _status,
}


def _refuse_option_without_name(argument: str) -> None:
    """Say what Hydra ends with a traceback for: a group set to something that is no text."""
    try:
        override = OverridesParser.create().parse_override(argument)
    except HydraException:
        return  # No override, or one that Hydra explains itself.
    group = "sparse_attention" if override.key_or_group == "attention" else override.key_or_group
    folder = config_folder() / group
    if not folder.is_dir() or isinstance(override.value(), Glob):
        return
    values = list(override.sweep_iterator()) if override.is_sweep_override() else [override.value()]
    for value in values:
        named = isinstance(value, str | dict) or (value is None and override.is_delete())
        if named or (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            continue
        options = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
        sys.exit(f"{argument}: {group} takes the name of an option, got {value!r}; take {options}")


def _refuse_deletion(argument: str) -> None:
    """Say what a sweep would find out late: what every experiment has cannot be deleted."""
    deleted = re.fullmatch(r"~(\w+)(=.*)?", argument)
    if deleted and deleted[1] in keys_of(config_folder() / "config.yaml"):
        sys.exit(
            f"{argument}: every experiment has {deleted[1]}; leave this out for its default, or "
            f"set it with {deleted[1]}="
        )


def main() -> None:
    """Run a subcommand, or Hydra with everything else."""
    if len(sys.argv) > 1 and sys.argv[1] in SUBCOMMANDS:
        SUBCOMMANDS[sys.argv[1]](sys.argv[2:])
        return
    for argument in sys.argv[1:]:
        key = re.match(r"[+~]*attention\.([^=]*)", argument)
        if key:
            sys.exit(
                f"{argument}: attention= only chooses; a value is set with "
                f"sparse_attention.{key.group(1)}="
            )
    for argument in sys.argv[1:]:
        _refuse_option_without_name(argument)
        _refuse_deletion(argument)
    mistake = unreadable(config_folders(sys.argv[1:], default=config_folder()))
    if mistake is not None:
        sys.exit(plain(mistake))
    try:
        _hydra_main()
    except Interrupted as interruption:
        logger.warning("interrupted; what was answered is kept, run again to go on")
        sys.exit(128 + interruption.signum)
