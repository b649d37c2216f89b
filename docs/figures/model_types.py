"""Write the tables of model types in docs/models.md: `python docs/figures/model_types.py`.

Saves a tiny random checkpoint of every type that AutoModelForCausalLM or AutoModelForMultimodalLM
knows, and loads it.
"""

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/models")]

# ruff: noqa: E402 - the small models are those of the tests
import transformers
from zoo import NOT_BUILT as WITHOUT_MODEL
from zoo import model_types, save_checkpoint
from zoo_multimodal import NOT_TRIED as WITHOUT_CHECKPOINT
from zoo_multimodal import multimodal_types, save_multimodal_checkpoint

from sah.errors import ConfigurationError, ModelLoadingError
from sah.models.hub import HubModel

PAGE = ROOT / "docs/models.md"
TABLES = {"model types": model_types, "multimodal types": multimodal_types}

MEASURED = "measured"
NOT_BUILT = f"cannot be built by transformers {transformers.__version__}, so not tried"
NOT_TRIED = "not tried"


def verdict(model_type: str, folder: Path) -> str:
    """Return `measured`, or the reason for which a checkpoint of this type is refused.

    Args:
        model_type: one of `zoo.model_types` or `zoo_multimodal.multimodal_types`.
        folder: an empty one for the checkpoint.
    """
    if model_type in WITHOUT_MODEL:
        return NOT_BUILT
    if model_type in WITHOUT_CHECKPOINT:
        return NOT_TRIED
    if model_type in multimodal_types():
        save_multimodal_checkpoint(model_type, folder)
    else:
        save_checkpoint(model_type, folder)
    try:
        HubModel(name="small", name_or_path=str(folder), device="cpu").load()
    except (ConfigurationError, ModelLoadingError) as error:
        reason = str(error).partition(" cannot be measured: ")[2] or str(error)
        # Left out: names of classes, and distances, which differ between machines.
        reason = re.sub(r"^'.*' \(\w+, model_type '.*'\) ", "it ", reason)
        reason = re.sub(r" by [\d.e+-]+ of their spread", "", reason)
        reason = re.sub(r"^[A-Z]\w+ (passes|calls)", r"it \1", reason)
        return "refused: " + reason.partition("; choose ")[0]
    return MEASURED


def documented(name: str = "model types") -> dict[str, str]:
    """Return the verdict of every model type in a table, one of TABLES."""
    _, table, _ = _parts(PAGE.read_text(encoding="utf-8"), name)
    verdicts = {}
    for line in table.splitlines():
        if match := re.fullmatch(r"\| (?P<verdict>.+) \| (?P<types>`.+`) \|", line):
            for model_type in re.findall(r"`([^`]+)`", match["types"]):
                verdicts[model_type] = match["verdict"]
    return verdicts


def _parts(page: str, name: str) -> tuple[str, str, str]:
    """Return the page up to a table, the table, and the page after it."""
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.partition(begin)
    table, _, after = rest.partition(end)
    return before + begin, table, end + after


def _table(types: list[str]) -> str:
    groups: dict[str, list[str]] = {}
    for model_type in types:
        with TemporaryDirectory() as folder:
            groups.setdefault(verdict(model_type, Path(folder)), []).append(model_type)
    # The measured first, then the most frequent reasons.
    ordered = sorted(groups, key=lambda reason: (reason != MEASURED, -len(groups[reason]), reason))
    rows = [
        f"| {reason} | {', '.join(f'`{name}`' for name in groups[reason])} |" for reason in ordered
    ]
    return "\n".join(["| verdict | model types |", "|---|---|", *rows]) + "\n"


def main() -> None:
    """Replace the tables in the page."""
    for name, types in TABLES.items():
        before, _, after = _parts(PAGE.read_text(encoding="utf-8"), name)
        PAGE.write_text(before + _table(types()) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
