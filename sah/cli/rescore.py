"""`sah rescore`: score stored answers again, without the model."""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

from sah.errors import SahError
from sah.execution.rescoring import rescore
from sah.results.store import PREDICTIONS, read_result
from sah.terminal import plain

logger = logging.getLogger(__name__)


DESCRIPTION = "Score the answers of every experiment below each folder again."


def main(arguments: list[str]) -> None:
    """Score the answers of every experiment below the given folders again."""
    parser = argparse.ArgumentParser(prog="sah rescore", description=DESCRIPTION)
    parser.add_argument("folders", nargs="+", type=Path)
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
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = [experiment for folder in options.folders for experiment in _experiments(folder)]
    if not found:
        raise SystemExit(f"no complete experiment below {', '.join(map(str, options.folders))}")
    failed = 0
    for folder in found:
        try:
            before, after = rescore(
                folder, allow=options.allow, trust_remote_code=options.trust_remote_code
            )
        except (SahError, OSError) as error:
            logger.error("%s", plain(f"{folder}: {error}"))
            failed += 1
            continue
        logger.info("%s: %s -> %s", folder, _shown(before), _shown(after))
    if failed:
        raise SystemExit(f"{failed} of {len(found)} experiments could not be rescored")


def _experiments(folder: Path) -> Iterator[Path]:
    """Find the complete experiments below a folder, or the folder itself."""
    for path in sorted(folder.rglob(PREDICTIONS)):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and read_result(path.parent) is not None:
            yield path.parent


def _shown(score: float | None) -> str:
    return "no score" if score is None else f"{score:.4f}"
