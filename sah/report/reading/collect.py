"""Finding and reading the results below an output root: ten thousand in seconds."""

import logging
from pathlib import Path

from sah.errors import ConfigurationError, DamagedResults
from sah.results.schema import Result
from sah.results.store import RESULTS, read_result
from sah.terminal import plain

logger = logging.getLogger(__name__)


def collect(root: Path) -> list[Result]:
    """Read every result below an output root, ordered by directory.

    Damaged results are left out with a warning that names them.

    Raises:
        ConfigurationError: if there are no results.
    """
    results = []
    for path in sorted(root.glob(f"*/*/*/*/{RESULTS}")):
        try:
            result = read_result(path.parent)
        except DamagedResults as error:
            logger.warning("left out: %s", plain(str(error)))
            continue
        if result is not None:
            results.append(result)
    if not results:
        raise ConfigurationError(
            f"no complete experiment below {str(root)!r}; `sah status {root}` shows unfinished "
            "ones; give another folder as the argument"
        )
    return results
