"""`sah completion`: what the shells ask, and what bash makes of the answer."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sah.cli import completion
from sah.cli.completion import complete
from sah.cli.topics.screen import SUBCOMMANDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sah ", list(SUBCOMMANDS)),
        ("sah stat", ["status"]),
        ("SAH_CACHE=/tmp sah stat", ["status"]),
        ("sah report --fo", ["--format"]),
        ("sah report --format l", ["latex"]),
        ("sah report --by att", ["attention"]),
        ("sah compare --baseline att", ["attention="]),
        ("sah report outp", []),
        ("sah completion z", ["zsh"]),
        ("sah help page", []),
        ("sah help vattention_h", ["vattention_hash"]),
        ("sah help masker=que", ["masker=quest"]),
        ("sah run -m --config-d", ["--config-dir"]),
    ],
)
def test_commands_options_and_topics_are_completed(line, expected):
    assert complete(line) == expected


@pytest.mark.parametrize("command", SUBCOMMANDS)
def test_every_command_completes_its_options(command):
    assert complete(f"sah {command} --hel") == ["--help"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sah run model=smo", ["model=smollm2"]),
        ("sah attention=dense,que", ["attention=dense,quest"]),
        ("sah doctor benchmark=ruler benchmark.sam", ["benchmark.samples="]),
        ("sah run generation.top", ["generation.top_k=", "generation.top_p="]),
        (
            "sah run attention=quest sparse_attention.maskers.quest.page",
            ["sparse_attention.maskers.quest.page_size="],
        ),
    ],
)
def test_overrides_are_completed_by_hydra(line, expected):
    assert complete(line) == expected


def test_options_of_a_folder_of_ones_own_are_completed(tmp_path):
    (tmp_path / "protocol").mkdir()
    (tmp_path / "protocol" / "mine.yaml").write_text("name: mine\n")
    assert complete(f"sah run --config-dir {tmp_path} protocol=mi") == ["protocol=mine"]
    assert complete(f"sah help --config-dir {tmp_path} mi") == ["mine", "mistral"]


@pytest.fixture
def sah(tmp_path):
    """A program `sah` that runs this checkout."""
    program = tmp_path / "sah"
    program.write_text(
        f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -c "
        "'from sah.cli.main import main; main()' \"$@\"\n"
    )
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("line", "after_break", "expected"),
    [
        ("sah stat", "stat", "status"),
        # bash passes and replaces what follows the word break.
        ("sah run model=smo", "smo", "smollm2"),
        ("sah run nothing=x", "x", ""),
    ],
)
def test_bash_gets_the_part_of_a_word_that_it_replaces(line, after_break, expected, sah):
    script = (
        'eval "$(sah completion bash)"\n'
        f"COMP_LINE={line!r} COMP_POINT={len(line)}\n"
        f"_sah_complete sah {after_break!r} ''\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "--norc", "-c", script], env=sah, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == f"{expected}\n"


@pytest.mark.parametrize(("shell", "check"), [("zsh", "-n"), ("fish", "--no-execute")])
def test_the_script_of_a_shell_is_valid(shell, check, capsys):
    completion.main([shell])
    script = capsys.readouterr().out
    assert f"{'$words[1]' if shell == 'zsh' else 'sah'} completion query" in script
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, check], input=script, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
