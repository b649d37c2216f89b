"""`sah rescore`: score stored answers again, without the model."""

import logging
from pathlib import Path

from sah.cli.arguments.parser import Parser
from sah.errors import SahError
from sah.terminal import plain

logger = logging.getLogger(__name__)


def make_parser() -> Parser:
    """Return the parser of this subcommand."""
    parser = Parser(
        "rescore",
        "Score the stored answers of every complete experiment below each folder again, with the "
        "scorers of this version and without the model.",
        examples=["rescore outputs", "rescore outputs/llama/quest --allow mypackage.Benchmark"],
        then="`sah report` shows the new scores",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        type=Path,
        metavar="FOLDER",
        help="output roots, folders in them, or directories of experiments",
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="CLASS",
        help="a class that is not in sah's configuration and may be used; may be repeated",
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run code that comes with a model, where the experiment did so",
    )
    return parser


def main(arguments: list[str]) -> None:
    """Score the answers of every experiment below the given folders again."""
    options = make_parser().parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from sah.execution.rescoring import rescore
    from sah.report.reading.collect import find

    try:
        found = find(options.folders)
    except SahError as error:
        raise SystemExit(plain(f"sah rescore: {error}")) from error
    found.warn_of_copies()
    # A result that does not fit its scores is one whose rescoring was interrupted.
    complete = [folder for folder, content in found.contents.items() if content is not None]
    if not complete:
        raise SystemExit(f"no complete experiment below {', '.join(map(str, options.folders))}")
    failed = 0
    for folder in complete:
        try:
            before, after = rescore(
                folder, allow=options.allow, trust_remote_code=options.trust_remote_code
            )
        except (SahError, OSError) as error:
            logger.error("%s", plain(f"{folder}: {error}"))
            failed += 1
            continue
        logger.info("%s", plain(f"{folder}: {_shown(before)} -> {_shown(after)}"))
    if failed:
        raise SystemExit(f"{failed} of {len(complete)} experiments could not be rescored")


def _shown(score: float | None) -> str:
    return "no score" if score is None else f"{score:.4f}"
