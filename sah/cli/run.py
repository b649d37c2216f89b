"""`sah run`, the same as `python run.py`: one experiment, or a sweep with -m."""

import logging
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from sah.cli.arguments.config_files import config_folders, shipped_study, unreadable
from sah.cli.arguments.hydra_flags import (
    ExperimentFailed,
    asks_for_help,
    one_message,
    refused_flags,
)
from sah.cli.arguments.overrides import refuse_mistakes
from sah.cli.arguments.parser import Parser
from sah.errors import Busy, Interrupted, SahError, category
from sah.paths import config_folder
from sah.terminal import plain

logger = logging.getLogger(__name__)


def make_parser() -> Parser:
    """Return a parser that describes the flags of Hydra, which parses them itself."""
    parser = Parser(
        "run",
        "Run an experiment, or with -m a sweep over all combinations of the values given. What is "
        "complete is not computed again; what was interrupted resumes. `python run.py` is the "
        "same.",
        examples=[
            "run model=tiny benchmark=mock attention=quest",
            "run -m attention=dense,quest seed=1,2 hydra/launcher=slurm",
            "run attention=quest sparse_attention.maskers.quest.page_size=32",
            "run attention=quest --cfg job",
        ],
        then="`sah help` lists the groups and keys, `sah status` follows a sweep, `sah report` "
        "shows the results",
    )
    add = parser.add_argument
    add(
        "overrides",
        nargs="*",
        metavar="OVERRIDE",
        help="GROUP=OPTION, KEY=VALUE, with -m lists of them; +KEY=VALUE adds a key, ~KEY deletes "
        "one",
    )
    add("-m", "--multirun", action="store_true", help="run every combination of listed values")
    add("-c", "--cfg", choices=("job", "hydra", "all"), help="show the configuration and exit")
    add("--resolve", action="store_true", help="with --cfg: interpolations resolved")
    add("-p", "--package", metavar="KEY", help="with --cfg: this part of the configuration only")
    add("-i", "--info", metavar="WHAT", help="show how Hydra composes: all, config, defaults, …")
    add("-cd", "--config-dir", metavar="FOLDER", help="find your own options in FOLDER, too")
    add("-cn", "--config-name", metavar="NAME", help="start from the yaml NAME, such as a study")
    add("-cp", "--config-path", metavar="FOLDER", help="replace the folder of configurations")
    add("-sc", "--shell-completion", action="store_true", help="of Hydra; see `sah completion`")
    add("--hydra-help", action="store_true", help="Hydra's own help")
    add("--version", action="store_true", help="version of Hydra; `sah --version` is SAH's")
    return parser


def refuse(arguments: list[str]) -> None:
    """Exit with one message for what Hydra would ignore or answer with a traceback."""
    refuse_mistakes(arguments)
    study = shipped_study(arguments)
    folders = config_folders(arguments, default=config_folder())
    mistake = unreadable([*folders, study] if study else folders)
    mistake = mistake or refused_flags(arguments)
    if mistake is not None:
        sys.exit(plain(mistake))


def main(arguments: list[str]) -> None:
    """Check the command line, then hand it to Hydra, which reads sys.argv itself."""
    if asks_for_help(arguments):
        make_parser().print_help()
        return
    refuse(arguments)
    try:
        with one_message():
            _hydra_main()
    except Interrupted as interruption:
        done = ", ".join(["interrupted", interruption.progress]).removesuffix(", ")
        logger.warning("%s; run the same command again to resume", done)
        sys.exit(128 + interruption.signum)


@hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")
def _hydra_main(config: DictConfig) -> float | None:
    from sah.execution.attempts import compute
    from sah.execution.progress import quiet_libraries
    from sah.results.show import show_next, show_result
    from sah.results.state import read_state
    from sah.results.store import ERROR

    overrides = list(HydraConfig.get().overrides.task)
    folder = Path(HydraConfig.get().runtime.output_dir)
    quiet_libraries()
    try:
        result = compute(config, overrides)
    except Interrupted as interruption:
        progress = read_state(folder).progress
        raise Interrupted(interruption.signum, progress=progress) from None
    except Exception as error:
        if isinstance(error, Busy):
            raise ExperimentFailed(plain(str(error))) from error
        kind = category(error)
        if kind == "unknown" and not isinstance(error, SahError):
            raise
        details = folder / ERROR
        hint = f"\ndetails in {details}" if details.exists() else ""
        raise ExperimentFailed(plain(f"{kind}: {error}{hint}")) from error
    show_result(result)
    if HydraConfig.get().mode == RunMode.RUN:
        show_next(result)
    return result.score
