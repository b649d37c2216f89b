"""`sah`, `sah --help` and `sah help`: what is shown, within 80 columns, and without torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from sah.cli import help as help_command
from sah.cli import main as entry
from sah.cli.main import main
from sah.cli.topics.classes import read_docs, read_references
from sah.cli.topics.options import find_options
from sah.cli.topics.screen import SUBCOMMANDS
from sah.paths import STAGES, config_folder

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "hydra", "omegaconf", "rich", "numpy", "polars", "yaml"}


@pytest.fixture
def sah(monkeypatch, capsys):
    """Call `sah`; return what it prints."""

    def call(*arguments, program="sah"):
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        monkeypatch.setenv("COLUMNS", "80")
        try:
            main()
        except SystemExit as end:
            if end.code:
                raise
        return capsys.readouterr().out

    return call


def widest(text):
    return max(map(len, text.splitlines()))


def test_one_screen_names_every_command_and_the_next_step(sah):
    shown = sah()
    assert shown == sah("--help") == sah("-h")
    assert widest(shown) <= 80
    assert len(shown.splitlines()) <= 40
    for name in SUBCOMMANDS:
        assert re.search(rf"^  {name} +\w", shown, flags=re.MULTILINE)
    assert shown.splitlines()[-1].startswith("next: sah run ")


def test_every_module_of_a_command_is_listed():
    modules = {path.stem for path in (ROOT / "sah" / "cli").glob("[a-z]*.py")}
    assert modules - {"main"} == set(SUBCOMMANDS)


def test_the_help_of_the_script_says_how_to_get_that_of_hydra(sah):
    assert sah("--help", program="run.py").startswith(sah("--help"))
    assert "--hydra-help" in sah("--help", program="run.py")


def test_the_screen_and_the_version_import_nothing_heavy():
    program = (
        "import sys\n"
        "sys.argv = ['sah', sys.argv[1]]\n"
        "from sah.cli.main import main\n"
        "main()\n"
        "sys.stderr.write(' '.join(name.partition('.')[0] for name in sys.modules))\n"
    )
    for flag in ("--help", "--version"):
        done = subprocess.run(
            [sys.executable, "-c", program, flag], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(("SAH 0", "sah 0"))
        assert HEAVY & set(done.stderr.split()) == set()


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_the_help_of_every_command_fits_80_columns(command, sah):
    assert widest(sah(command, "--help")) <= 80


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["stauts"], "'stauts' is not a command; did you mean status?"),
        (["frobnicate"], "'frobnicate' is not a command; `sah --help` lists the commands"),
        (["run", "quest"], "'quest' is not an override; write KEY=VALUE. Did you mean attention="),
        (["run", "--mutirun"], "--mutirun is not a flag; did you mean --multirun?"),
        (["help", "qest"], "'qest' is not an option, a group, a key or a command; did you mean"),
    ],
)
def test_a_mistyped_word_is_answered_with_what_is_similar(arguments, expected, sah):
    with pytest.raises(SystemExit) as end:
        sah(*arguments)
    assert expected in str(end.value.code)


def test_run_is_the_script(monkeypatch):
    seen = []
    monkeypatch.setattr(
        entry.importlib,
        "import_module",
        lambda name: type(name, (), {"main": lambda given: seen.append((name, given, sys.argv))}),
    )
    for argv in (["sah", "run", "-m", "seed=1,2"], ["run.py", "-m", "seed=1,2"], ["run.py"]):
        monkeypatch.setattr(sys, "argv", argv)
        main()
    runs = [
        ("sah.cli.run", ["-m", "seed=1,2"], [name, "-m", "seed=1,2"]) for name in ("sah", "run.py")
    ]
    assert seen == [*runs, ("sah.cli.run", [], ["run.py"])]


OPTIONS = find_options([config_folder()])


def test_every_option_has_a_page_of_80_columns(capsys):
    for option in OPTIONS:
        help_command.main([option.title])
        shown = capsys.readouterr().out
        assert "source not found" not in shown
        # What cannot be wrapped: values, and lists in docstrings.
        wide = [line for line in shown.splitlines() if len(line) > 80 and "${" not in line]
        assert wide == [], option.title


def test_an_option_is_its_yaml_its_class_and_its_paper(sah):
    shown = sah("help", "quest")
    assert "attention=quest    conf/sparse_attention/quest.yaml" in shown
    assert "  page_size: 16" in shown
    assert "  Add the keys of the pages with the highest bounds" in shown
    assert "Tang et al. (2024). Quest: Query-Aware" in shown
    assert "https://arxiv.org/abs/2406.10774" in shown
    assert shown.endswith("sah run attention=quest sparse_attention.maskers.quest.fraction=VALUE\n")


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("sparse_attention", "attention: "),
        ("masker", "+masker@sparse_attention.maskers.NAME="),
        ("resume", "# false: compute a complete experiment again"),
        ("sparse_attention.maskers.quest.page_size", "  # Keys per page; 16 as in the paper.\n"),
        ("generation", "  generation.top_k: null"),
        ("default", "default is an option of 2 groups"),
        ("streaming_llm", "same name: sah help evictor=streaming_llm"),
        ("aime2024", "sah.benchmarks.suites.aime.Aime"),
        ("hydra/launcher=slurm", "hydra.launcher."),
        ("report", "usage: sah report"),
    ],
)
def test_groups_keys_aliases_and_commands_have_pages(topic, expected, sah):
    shown = sah("help", topic)
    assert expected in shown
    assert widest(shown) <= 80


def test_a_key_of_one_option_leaves_out_those_of_others(sah):
    assert "masker=socket" not in sah("help", "masker.quest.fraction")
    assert "masker=socket" in sah("help", "fraction")


def test_options_of_a_folder_are_explained_without_importing_them(tmp_path, sah, monkeypatch):
    (tmp_path / "own" / "masker").mkdir(parents=True)
    (tmp_path / "own" / "masker" / "mine.yaml").write_text(
        "# The keys I like.\n_target_: mine_maskers.Mine\n# How many.\ntokens: 3\n"
    )
    (tmp_path / "mine_maskers.py").write_text(
        'raise SystemExit("imported")\n\n\n'
        'class Mine:\n    """Add what I like (arXiv:2101.00001)."""\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    shown = sah("help", "mine", "--config-dir", str(tmp_path / "own"))
    assert "  Add what I like" in shown
    assert "https://arxiv.org/abs/2101.00001" in shown
    assert "How many." in sah("help", "mine.tokens", "--config-dir", str(tmp_path / "own"))


def test_a_class_that_is_exported_again_is_found():
    docs = read_docs("sah.benchmarks.ruler.Ruler")
    assert docs is not None
    assert docs.of_class
    assert read_docs("sah.no_such_module.Ruler") is None
    assert read_docs("no_such_package.Ruler") is None


def test_every_entry_of_the_bibliography_is_read_whole():
    for one in read_references():
        assert re.fullmatch(r"\d{4}\.\d{5}", one.arxiv), one
        assert one.title
        assert one.authors
        assert not re.search(r"[{}]", str(one))


@pytest.mark.parametrize("name", ["quest", "snapkv", "kivi", "xattention"])
def test_a_preset_shows_how_to_change_a_value_of_its_part(name, sah):
    shown = " ".join(sah("help", name).replace("\\\n", " ").split())
    (key,) = re.findall(rf"use: sah run attention={name} ([\w.]+)=VALUE", shown)
    assert re.fullmatch(rf"sparse_attention\.\w+\.{name}\.\w+", key)


@pytest.mark.parametrize("group", STAGES)
def test_the_page_of_a_group_of_parts_says_where_they_go(group, sah):
    shown = sah("help", group)
    assert f"use: sah run +{group}@sparse_attention.{STAGES[group]}.NAME=" in shown
