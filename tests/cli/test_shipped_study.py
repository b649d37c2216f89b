"""--config-name finds the shipped studies; without it their folder stays out of the search path."""

import pytest

from sah.cli.arguments.config_files import shipped_study
from sah.paths import studies_folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config-name", "evictors"],
        ["--config-name=evictors.yaml", "model=tiny"],
        ["-cn", "evictors", "--config-dir", "mine"],
    ],
)
def test_a_shipped_study_is_found_by_its_name(arguments):
    assert shipped_study(arguments) == studies_folder()


@pytest.mark.parametrize(
    "arguments",
    [
        ["model=tiny"],
        ["--config-name", "config"],
        ["--config-name", "nothing"],
        ["--config-dir", str(studies_folder()), "--config-name", "evictors"],
    ],
)
def test_other_commands_do_not_see_the_options_of_studies(arguments):
    assert shipped_study(arguments) is None


def test_a_file_of_your_own_comes_before_a_study_of_its_name_and_may_build_on_one(tmp_path):
    arguments = ["--config-dir", str(tmp_path), "--config-name", "evictors"]
    (tmp_path / "evictors.yaml").write_text("defaults: [config, _self_]\n")
    assert shipped_study(arguments) is None
    (tmp_path / "evictors.yaml").write_text("defaults: [budget_frontier, _self_]\n")
    assert shipped_study(arguments) == studies_folder()
    (tmp_path / "evictors.yaml").write_text("defaults: [")
    assert shipped_study(arguments) is None
