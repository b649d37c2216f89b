"""Write the table of model types in docs/models.md: `python docs/figures/model_types.py`.

Builds a tiny random model of every type that AutoModelForCausalLM knows, and asks the gate.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/models")]

# ruff: noqa: E402 - the small models are those of the tests
import transformers
from zoo import NOT_BUILT as WITHOUT_MODEL
from zoo import model_types, small_model

from sah.errors import ConfigurationError
from sah.models.gate import check_model
from sah.models.language_model import LanguageModel
from sah.models.prompts import PromptEncoder
from sah.models.tiny import tiny_tokenizer

PAGE = ROOT / "docs/models.md"
BEGIN, END = "<!-- model types -->\n", "<!-- end of model types -->"

MEASURED = "measured"
NOT_BUILT = f"cannot be built by transformers {transformers.__version__}, so not tried"


def verdict(model: LanguageModel) -> str:
    """Return `measured`, or the reason for which the gate refuses a model."""
    try:
        check_model(model)
    except ConfigurationError as error:
        _, _, reason = str(error).partition(" cannot be measured: ")
        # Distances differ between machines, and classes between types with one reason.
        reason = re.sub(r" by [\d.e+-]+ of their spread", "", reason)
        reason = re.sub(r"^[A-Z]\w+ passes", "it passes", reason)
        return "refused: " + reason.removesuffix("; choose another model")
    return MEASURED


def documented() -> dict[str, str]:
    """Return the verdict of every model type in the table."""
    table = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    verdicts = {}
    for line in table.splitlines():
        if match := re.fullmatch(r"\| (?P<verdict>.+) \| (?P<types>`.+`) \|", line):
            for model_type in re.findall(r"`([^`]+)`", match["types"]):
                verdicts[model_type] = match["verdict"]
    return verdicts


def found() -> Iterator[tuple[str, str]]:
    """Ask the gate for every model type."""
    for model_type in model_types():
        if model_type in WITHOUT_MODEL:
            yield model_type, NOT_BUILT
        else:
            model = LanguageModel(small_model(model_type), PromptEncoder(tiny_tokenizer(), None))
            yield model_type, verdict(model)


def main() -> None:
    """Replace the table in the page."""
    groups: dict[str, list[str]] = {}
    for model_type, reason in found():
        groups.setdefault(reason, []).append(model_type)
    # The measured first, then the most frequent reasons.
    ordered = sorted(groups, key=lambda reason: (reason != MEASURED, -len(groups[reason]), reason))
    rows = [
        f"| {reason} | {', '.join(f'`{name}`' for name in groups[reason])} |" for reason in ordered
    ]
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    table = "\n".join(["| verdict | model types |", "|---|---|", *rows])
    PAGE.write_text(f"{before}{BEGIN}{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
