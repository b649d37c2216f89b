"""`sah rescore`: compute scores again from stored answers, without the model."""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

from sah.errors import SahError
from sah.execution.rescoring import rescore
from sah.results.store import PREDICTIONS, read_results

logger = logging.getLogger(__name__)


DESCRIPTION = "Compute results.json again from predictions.jsonl, below each folder."


def main(arguments: list[str]) -> None:
    """Compute results.json again from predictions.jsonl, for every experiment below a folder."""
    parser = argparse.ArgumentParser(prog="sah rescore", description=DESCRIPTION)
    parser.add_argument("folders", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = [experiment for folder in options.folders for experiment in _experiments(folder)]
    if not found:
        raise SystemExit(f"no complete experiment below {', '.join(map(str, options.folders))}")
    failed = 0
    for folder in found:
        try:
            before, after = rescore(folder)
        except SahError as error:
            logger.error("%s: %s", folder, error)
            failed += 1
            continue
        logger.info("%s: %s -> %s", folder, _shown(before), _shown(after))
    if failed:
        raise SystemExit(f"{failed} of {len(found)} experiments could not be scored again")


def _experiments(folder: Path) -> Iterator[Path]:
    """Folders with answers and results, the given one included."""
    for path in sorted(folder.rglob(PREDICTIONS)):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and read_results(path.parent) is not None:
            yield path.parent


def _shown(score: float | None) -> str:
    return "no score" if score is None else f"{score:.4f}"
