"""Any command line ends in a result or in a message, never in a traceback.

SAH_FUZZ_EXAMPLES is the number of command lines; `make fuzz` runs a thousand.
"""

import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra import initialize_config_dir
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"
EXAMPLES = int(os.environ.get("SAH_FUZZ_EXAMPLES", "40"))
GROUPS = ("sparse_attention", "attention", "metric_logging", "protocol", "generation", "tracker")
# Keeps a case to a second, and its result where the test looks for it. The timeout counts CPU time.
GIVEN = ("model=tiny", "benchmark=mock", "benchmark.limit=2", "timeout_minutes=0.2")
NEVER = ("output_root", "hydra", "tracker", "study")
CPU_SECONDS = 60

Report = dict[str, Any]


def leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of every leaf."""
    if isinstance(node, DictConfig):
        for key in node:
            yield from leaves(node._get_node(key), f"{path}.{key}" if path else str(key))
    else:
        yield path, node._value()


def schema() -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", list(GIVEN))
    return {key: value for key, value in leaves(config) if not key.startswith(NEVER)}


DEFAULTS = schema()
KEYS = list(DEFAULTS)
ODD_TEXT = (
    *("", " ", "..", "../../x", "/etc/passwd", "a/b", "a\\b", "~", ".", "-", "--", "x" * 300),
    *(
        "名前",
        "émile",
        "🙂",
        "\x1b[31mred",
        "<script>",
        "a\nb",
        "'",
        '"',
        "a'b",
        "%s",
        "{}",
        "\x00",
    ),
    *("null", "true", "no", "NaN", "inf", "-inf", "1e400", "0x10", "1_000", "2026-11-22", "???"),
    *("${seed}", "${nothing}", "${oc.env:HOME}", "${oc.env:NOPE}", "${sah.directory:}", "${", "$"),
    *("${model}", "${oc.decode:[1,2]}", "${benchmark.name}/${seed}", "${sah.nope:1}", "a=b"),
    *("!!python/object:os.system", "!!python/name:os.system", "[1,2", "{a:", "*", "glob(*)"),
)
NUMBERS = (0, -1, 1, 2, 3, 0.5, -0.5, 1.5, 2**31, 2**63, -(2**63), 10**30, 1e-12, 1e308)
values = st.one_of(
    st.sampled_from(ODD_TEXT),
    st.sampled_from([str(number) for number in NUMBERS]),
    st.sampled_from(["[]", "{}", "[1,2]", "[a]", "{a: 1}", "[[1]]", "[null]", "{1: 2}"]),
    st.integers().map(str),
    st.floats().map(str),
    st.text(max_size=8),
)


def likely_values(key: str) -> st.SearchStrategy[str]:
    """Values of the right type."""
    default = DEFAULTS[key]
    if isinstance(default, bool):
        return st.sampled_from(["true", "false"])
    if isinstance(default, int):
        return st.integers(0, 20).map(str)
    if isinstance(default, float):
        return st.floats(0, 1).map(str)
    return st.sampled_from(["null", "1", "0.5", "name"])


likely = st.sampled_from(KEYS).flatmap(lambda key: likely_values(key).map(f"{key}={{}}".format))
odd = st.one_of(
    st.tuples(st.sampled_from(KEYS), values).map("=".join),
    st.tuples(
        st.sampled_from(["+", "++", "~", "+sparse_attention.", "sparse_attention."]),
        st.sampled_from([*KEYS, "nope", "a.b"]),
        values,
    ).map(lambda parts: f"{parts[0]}{parts[1]}={parts[2]}"),
    st.tuples(st.sampled_from(GROUPS), values).map("=".join),
    st.sampled_from(KEYS).map(lambda key: f"~{key}"),
    values,
)
options = st.sampled_from(
    [
        f"{group}={path.stem}"
        for group in ("sparse_attention", "protocol", "metric_logging", "masker", "benchmark")
        for path in sorted((CONF / group).glob("*.yaml"))
    ]
)
command_lines = st.tuples(
    st.lists(st.one_of(likely, likely, options), max_size=2), st.lists(odd, max_size=2)
).map(lambda parts: [*parts[0], *parts[1]])


@pytest.fixture(scope="module")
def run_line(runs: Any) -> Callable[[list[str]], Report]:
    """Run a command line; report its exit status, its output, and every file it left."""

    def run(arguments: list[str]) -> Report:
        with tempfile.TemporaryDirectory() as folder:
            home, log = Path(folder, "home"), Path(folder, "said")
            home.mkdir()
            status = runs.run(home, *arguments, log=log, cpu_seconds=CPU_SECONDS)
            return {
                "status": status,
                "said": log.read_text(encoding="utf-8", errors="replace"),
                "files": contents(Path(folder)),
            }

    return run


def contents(folder: Path) -> dict[str, str]:
    """Every file below the folder; the text of configurations and results."""
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        if path.name in ("config.yaml", "results.json", "error.json")
        else ""
        for path in folder.rglob("*")
        if path.is_file()
    }


def configuration(report: Report) -> DictConfig | None:
    """The configuration of the experiment that left a result, if any did."""
    (found,) = [name for name in report["files"] if name.endswith("results.json")] or [None]
    if found is None:
        return None
    config = OmegaConf.create(report["files"][found.replace("results.json", "config.yaml")])
    assert isinstance(config, DictConfig)
    return config


def judge(arguments: list[str], report: Report) -> None:
    said = report["said"]
    assert report["status"] in (0, 1, 2), said
    assert "Traceback" not in said, said
    outside = [
        name for name in report["files"] if name != "said" and not name.startswith("home/outputs/")
    ]
    assert not outside, said
    if report["status"] != 0:
        assert re.search(r"\w{3}", said)
        return
    config = configuration(report)
    assert config is not None, said
    assert config.model.name == "tiny" or any(one.startswith("model") for one in arguments)
    for key, value in asked_for(arguments).items():
        assert OmegaConf.select(config, key) == value, (key, said)


def asked_for(arguments: list[str]) -> dict[str, Any]:
    """Return the plain values of keys that no later argument changed."""
    plain = {}
    for argument in arguments:
        key, _, text = argument.partition("=")
        plain.pop(key.lstrip("+~"), None)
        if key in KEYS and re.fullmatch(r"-?\d{1,15}|true|false|null", text):
            plain[key] = (
                OmegaConf.create({"value": None}).value if text == "null" else json.loads(text)
            )
    return plain


@pytest.mark.slow
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(arguments=command_lines)
def test_a_command_line_ends_in_a_result_or_in_a_message(
    arguments: list[str], run_line: Callable[[list[str]], Report]
) -> None:
    # Characters that no shell can pass.
    arguments = [
        argument.replace("\x00", "").encode(errors="ignore").decode() for argument in arguments
    ]
    judge(arguments, run_line([*GIVEN, *arguments]))


@pytest.mark.parametrize(
    ("arguments", "status"), [([], 0), (["seed=1"], 0), (["seed=one"], 1), (["nope=1"], 1)]
)
def test_the_judge_sees_the_run_itself(
    arguments: list[str], status: int, run_line: Callable[[list[str]], Report]
) -> None:
    report = run_line([*GIVEN, *arguments])
    assert report["status"] == status, report["said"]
    judge(arguments, report)


@pytest.mark.parametrize(
    ("report", "wrong"),
    [
        ({"status": 1, "said": "Traceback (most recent call last)", "files": {}}, "Traceback"),
        ({"status": -9, "said": "killed", "files": {}}, "killed"),
        ({"status": 1, "said": "no", "files": {"x/predictions.jsonl": ""}}, "x/predictions"),
    ],
)
def test_the_judge_rejects_a_bad_report(report: Report, wrong: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(wrong)):
        judge([], report)
