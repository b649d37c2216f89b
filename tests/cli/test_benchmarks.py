"""`sah benchmarks` lists what is there, and names what is not."""

import pytest

from sah.cli import benchmarks


def test_a_folder_that_does_not_exist_is_named(capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmarks.main(["--config-dir", "nowhere"])
    assert "--config-dir nowhere is not a folder" in capsys.readouterr().err
