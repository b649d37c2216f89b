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

ROW = b'{"context": "Otto is a cat.", "question": "Who?", "references": ["Otto"]}'
ROWS = "data/rows.jsonl"
"""The file of `benchmark=jsonl`, in the working directory."""

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
jsonl = st.lists(
    st.sampled_from(
        [
            "benchmark.subset=jsonl",
            "benchmark.subset=nope",
            "benchmark.subset=[]",
            "benchmark.metric=classification",
            "benchmark.metric=first_integer",
            "benchmark.context_tokens=8",
            "benchmark.path=.",
            "benchmark.path=none.jsonl",
            r"benchmark.path=data/a\${seed}.jsonl",
            f"benchmark.path={300 * 'x'}",
        ]
    ),
    max_size=1,
).map(lambda further: ["benchmark=jsonl", f"benchmark.path={ROWS}", *further])
settings_of_the_run = st.sampled_from(
    [
        *("hydra.job.chdir=true", "hydra.run.dir=elsewhere", "hydra.sweep.dir=elsewhere"),
        *("hydra.sweep.subdir=x", "hydra.output_subdir=.hydra", "hydra.job.env_copy=[NOPE]"),
        *("hydra.job.name=a/b", "hydra.mode=nope", "hydra.verbose=nope", "+hydra.x=1"),
        *("~hydra.callbacks.resume", "hydra/launcher=nope", "hydra.launcher.cpu_workers=nan"),
        *("+x=1", "+timeout_minute=5", "timeout_minute=5", "+study.x=nan", "+masker=sink"),
        *("output_root=null", "output_root=", "output_root='~/x'", "output_root=/proc/nope"),
        *(f"output_root={300 * 'x'}", r"output_root=outputs/a\${seed}", "output_root=${nope}"),
        *("+model.template_kwargs.x=1", "+model.template_kwargs={enable_thinking: nan}"),
        *("generation.thinking_tokens=0", "generation.thinking_tokens=nan"),
        *("++generation.thinking_tokens=3", "+model.model_kwargs.x=1", "+model._partial_=true"),
    ]
)
swept = st.one_of(
    st.tuples(st.sampled_from(KEYS), st.lists(values, min_size=2, max_size=2)).map(
        lambda parts: f"{parts[0]}={','.join(parts[1])}"
    ),
    st.tuples(
        st.sampled_from(["seed", "benchmark.limit", "attention", "benchmark.subset", "nope"]),
        st.sampled_from(
            [
                *("1,2", "nan,3", "dense,denze", "choice()", "choice(1,2)", "range(0,0)"),
                *("range(1,3)", "range(3,1)", "range(1,3,0)", "range(0,1e400)", "range(nan,1)"),
                *("range(0,1000000000000)", "interval(0,1)", "shuffle(1,2)", "sort(2,1)"),
                *("sort(a,1)", "tag(x,choice(1,2))", "glob(zzz*)", "glob(str*)", "int(1.5,2)"),
                *("nope(1)", "'*'", "1,1"),
            ]
        ),
    ).map("=".join),
    st.sampled_from(["hydra/sweeper=optuna", "hydra/sweeper=basic", "objective=scor,score"]),
)
sweeps = st.lists(swept, min_size=1, max_size=2).map(
    lambda parts: ["-m", "hydra/launcher=basic", "hydra.sweeper.max_batch_size=8", *parts]
)
flags = st.sampled_from(
    [
        *(["--cfg", "job"], ["--cfg", "hydra"], ["--cfg", "all", "--resolve"], ["--resolve"]),
        *(["--cfg", "hydra", "--resolve"], ["--cfg", "job", "--package", "nope"], ["--info"]),
        *(["-m", "--cfg", "job"], ["-m", "--info"], ["--info", "defaults"], ["--package", "x"]),
        *(["--experimental-rerun=missing"], ["--config-name", "nothere"], ["--hydra-help"]),
        *(["--config-dir", "nothere"], ["--config-path", "nothere"], ["--help"], ["--nothere"]),
        *(["--shell-completion"], ["--shell-completion", "query=bash"], ["--version"]),
    ]
)
unusual = st.one_of(jsonl, settings_of_the_run.map(lambda one: [one]), sweeps, flags)
command_lines = st.tuples(
    st.one_of(st.just([]), unusual),
    st.lists(st.one_of(likely, likely, options), max_size=2),
    st.lists(odd, max_size=2),
).map(lambda parts: [*parts[0], *parts[1], *parts[2]])

pieces = st.sampled_from(
    [
        *(ROW, ROW, b"\n", b"\n\n", b"{", b"}", b"[", b"]", b",", b":", b'"', b" ", b"\xff"),
        *(b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"\x00", b"NaN", b"1e999", b'"\\ud83d"'),
        ROW.replace(b'["Otto"]', b"[]"),
        ROW.replace(b'["Otto"]', b"[123456789012345678901234567890, 0.10, -0]"),
        ROW.replace(b"}", b', "context": "again"}'),
        ROW.replace(b"}", b', "id": "same"}') + b"\n",
        ROW.replace(b"}", b', "answr": 1}'),
        ROW.replace(b"}", b', "max_new_tokens": 1e3}'),
        ROW.replace(b"}", b', "extras": {"options": NaN}}'),
        ROW.replace(b"}", b', "extras": {"all_classes": 5, "groups": ["a"]}}'),
        ROW.replace(b"Otto is a cat.", b""),
        ROW.decode().encode("utf-16"),
    ]
)
files = st.lists(pieces, max_size=5).map(b"".join)


@pytest.fixture(scope="module")
def run_line(runs: Any) -> Callable[..., Report]:
    """Run a command line; report its exit status, its output, and every file it left."""

    def run(arguments: list[str], rows: bytes = ROW) -> Report:
        with tempfile.TemporaryDirectory() as folder:
            home, log = Path(folder, "home"), Path(folder, "said")
            (home / "data").mkdir(parents=True)
            (home / ROWS).write_bytes(rows)
            (home / "data" / "a${seed}.jsonl").write_bytes(ROW)
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


def configurations(report: Report) -> list[DictConfig]:
    """The configurations of the experiments that left a result."""
    found = [name for name in report["files"] if name.endswith("results.json")]
    texts = [report["files"][name.replace("results.json", "config.yaml")] for name in found]
    return [OmegaConf.create(text) for text in texts]


def only_shows(arguments: list[str]) -> bool:
    """Whether the command line asks Hydra for something else than a run."""
    shown = ("--cfg", "--info", "--help", "--hydra-help", "--version", "--shell-completion")
    return any(argument.startswith(shown) for argument in arguments)


def judge(arguments: list[str], report: Report, rows: bytes = ROW) -> None:
    said = report["said"]
    assert report["status"] in (0, 1, 2), said
    assert "Traceback" not in said, said
    outside = [
        name
        for name in report["files"]
        if name != "said" and not name.startswith(("home/outputs/", "home/data/"))
    ]
    assert not outside, said
    if report["status"] != 0:
        assert re.search(r"\w{3}", said)
        return
    configs = configurations(report)
    assert configs or only_shows(arguments), said
    for config in configs:
        assert config.model.name == "tiny" or any(one.startswith("model") for one in arguments)
        for key, value in asked_for(arguments).items():
            assert OmegaConf.select(config, key) == value, (key, said)
        if OmegaConf.select(config, "benchmark.path") == ROWS:
            assert all_objects(rows), said


def all_objects(rows: bytes) -> bool:
    """Whether every line that is not empty is a JSON object, by the standard library's rules."""
    lines = rows.decode("utf-8-sig").split("\n")
    return all(isinstance(json.loads(line), dict) for line in lines if line.strip())


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
@given(arguments=command_lines, rows=files)
def test_a_command_line_ends_in_a_result_or_in_a_message(
    arguments: list[str], rows: bytes, run_line: Callable[..., Report]
) -> None:
    # Characters that no shell can pass.
    arguments = [
        argument.replace("\x00", "").encode(errors="ignore").decode() for argument in arguments
    ]
    # Flags come first.
    first = next((n for n, one in enumerate(arguments) if not one.startswith("-")), len(arguments))
    if arguments and arguments[0] in ("--cfg", "--info", "--package", "-m"):
        first = next((n for n, one in enumerate(arguments) if "=" in one), len(arguments))
    judge(arguments, run_line([*arguments[:first], *GIVEN, *arguments[first:]], rows), rows)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 0),
        (["seed=1"], 0),
        (["seed=one"], 1),
        (["nope=1"], 1),
        (["benchmark=jsonl", f"benchmark.path={ROWS}"], 0),
    ],
)
def test_the_judge_sees_the_run_itself(
    arguments: list[str], status: int, run_line: Callable[..., Report]
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
        ({"status": 0, "said": "nothing", "files": {}}, "nothing"),
    ],
)
def test_the_judge_rejects_a_bad_report(report: Report, wrong: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(wrong)):
        judge([], report)
