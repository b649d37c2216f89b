"""Output that cannot be written ends a command with one message."""

import os
import sys

import pytest

from sah.cli.main import main


def ending(monkeypatch, arguments, target):
    """Return how a command ends whose output goes to a file or descriptor."""
    monkeypatch.setattr(sys, "argv", ["sah", *arguments])
    # Closing it would fail if something were still waiting to be written.
    with open(target, "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with pytest.raises(SystemExit) as ended:
            main()
    return ended.value.code


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["help", "quest"], ["benchmarks"], ["status", "."], ["status", ".", "--json"]],
)
def test_a_full_disk_is_one_message(arguments, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    code = ending(monkeypatch, arguments, "/dev/full")
    assert code.startswith("stdout cannot be written: No space left on device; make room")


def test_a_reader_that_went_away_ends_a_command_without_a_message(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    assert ending(monkeypatch, ["help", "quest"], writer) == 141


def test_a_command_leaves_the_output_as_it_was(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sah", "--version"])
    before = dict(vars(sys.stdout))
    main()
    assert vars(sys.stdout) == before
    assert capsys.readouterr().out.startswith("sah ")
