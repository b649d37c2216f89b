"""Reading results.json of earlier versions."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from sah.results.files import damaged, read_file
from sah.results.identity import NOT_IDENTITY
from sah.results.schema import Result

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Fields that came later and whose value is known for what was written before.
_BEFORE = {
    "protocol": "default",
    "index_bytes": {},
    "truncated": 0,
    "unfinished_thoughts": 0,
    "provenance": {},
}


def upgrade(document: Mapping[str, Any], config: Path) -> dict[str, Any]:
    """Convert results.json of schema 1 to schema 2.

    `forced` becomes `dense_agreement`; what was not recorded yet becomes null.

    Args:
        document: content of the file; its `schema` is kept.
        config: config.yaml beside it, read if the file has no copy of the configuration.

    Raises:
        DamagedResults: if config.yaml is needed and cannot be read.
    """
    absent: dict[str, Any] = {one.name: None for one in fields(Result)} | _BEFORE
    upgraded = absent | dict(document)
    upgraded["dense_agreement"] = document.get("forced", document.get("dense_agreement"))
    if isinstance(document.get("timing"), Mapping):
        # Nothing was saved before arms shared their prefills.
        upgraded["timing"] = {"prefill_seconds_saved": 0.0, **document["timing"]}
    if isinstance(document.get("tasks"), Mapping):
        upgraded["tasks"] = {name: _task(task) for name, task in document["tasks"].items()}
    if upgraded["config"] is None:
        try:
            written = yaml.load(read_file(config), Loader=_LOADER)
        except (FileNotFoundError, ValueError, yaml.YAMLError) as error:
            raise damaged(config, str(error).replace("\n", " ")) from error
        if not isinstance(written, Mapping):
            raise damaged(config, "it is not a mapping")
        upgraded["config"] = {k: v for k, v in written.items() if k not in NOT_IDENTITY}
    return upgraded


def early_answer_tokens(result: Result) -> float | None:
    """Return the mean answer length of a result whose file has none, from its total of new tokens.

    None if tasks have different numbers of answers, since it is a mean over tasks.
    """
    sizes = {task.n for task in result.tasks.values()}
    return result.timing.new_tokens / result.n if len(sizes) == 1 and result.n else None


def _task(task: Any) -> Any:
    """Add the number of contexts; before they were counted, each answer had its own."""
    return {"contexts": task.get("n"), **task} if isinstance(task, Mapping) else task
