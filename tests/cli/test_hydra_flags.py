"""Hydra's own flags: what excludes what, in one sentence and without a traceback."""

import pytest

from sah.cli import run
from sah.cli.arguments.hydra_flags import refused_flags
from sah.paths import STAGES


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["-m", "--cfg", "job"], "--multirun (-m) and --cfg exclude each other"),
        (["--multirun", "--info"], "--multirun (-m) and --info exclude each other"),
        (["--run", "-m"], "--run and --multirun (-m) exclude each other"),
        (["--cfg", "all", "--info", "defaults"], "--cfg and --info exclude each other"),
        (["--resolve"], "add --cfg job"),
        (["--package", "model"], "--package=model says what to show"),
        (["--cfg", "hydra", "--resolve"], "show both with --cfg all --resolve"),
        (["--experimental-rerun=missing"], "--experimental-rerun=missing is refused"),
        (["--experimental-rerun", "here", "-m"], "--experimental-rerun=here is refused"),
        (["--shell-completion"], "takes install=SHELL or uninstall=SHELL"),
        (["-sc", "install=nope"], "one of bash, fish, zsh"),
        (["-sc", "install=bash", "uninstall=bash"], "takes install=SHELL or uninstall=SHELL"),
        (["-sc", "query=bash"], "is for shells"),
        (["model=tiny", "-m", "seed=1,2"], "seed=1,2 comes after a flag"),
        (["+hydra.searchpath=[file://.]"], "+hydra.searchpath=[file://.]: Hydra ignores this"),
        (["++hydra.searchpath=[.]"], "write hydra.searchpath=[FOLDER,...]"),
        (["~hydra.searchpath"], "Hydra ignores this spelling"),
        (["hydra.searchpath@x=[.]"], "Hydra ignores this spelling"),
        (["hydra.searchpath=[.]", "hydra.searchpath=[/]"], "list all folders in one"),
        (["hydra.searchpath=[.,file:///not/here]"], "'file:///not/here' does not exist"),
        (["hydra.searchpath=[pkg://not.here]"], "'pkg://not.here' does not exist"),
        (["--config-name", "confg"], "--config-name confg: no such file in "),
        (["--config-name", "confg"], "did you mean config?"),
        (["--config-name", "budget_frontir"], "did you mean budget_frontier?"),
        (["-m", "quest"], "'quest' is not an override; write KEY=VALUE. Did you mean attention="),
        (["--mutirun"], "--mutirun is not a flag; did you mean --multirun?"),
    ],
)
def test_flags_that_make_no_sense_together_are_refused_in_one_sentence(
    flags, expected, monkeypatch
):
    monkeypatch.delenv("COMP_LINE", raising=False)
    message = refused_flags(flags)
    assert message is not None
    assert expected in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["-m"],
        ["--cfg", "job", "--resolve"],
        ["--cfg", "job", "--package", "model"],
        ["--info", "defaults"],
        ["--hydra-help"],
        ["-sc", "install=bash"],
        ["--config-name", "config"],
        ["--config-dir", "experiments", "--config-name", "budget_frontier"],
        ["--config-name", "budget_frontier"],
        ["hydra.searchpath=[.,file:///,pkg://sah.models]"],
        ["hydra.searchpath=not_a_list"],
        ["hydra.searchpath=[unbalanced"],
    ],
)
def test_flags_that_hydra_understands_are_left_to_it(flags):
    assert refused_flags(flags) is None


def test_a_completion_asked_by_a_shell_is_left_to_hydra(monkeypatch):
    monkeypatch.setenv("COMP_LINE", "python run.py model=")
    assert refused_flags(["-sc", "query=bash"]) is None


@pytest.mark.parametrize(
    "argument", ["~hydra.callbacks.resume", "~hydra/callbacks", "~hydra.callbacks"]
)
def test_the_check_before_every_experiment_cannot_be_deleted(argument):
    with pytest.raises(SystemExit, match="this callback checks an experiment before it runs"):
        run.main([argument])


@pytest.mark.parametrize("group", STAGES)
def test_a_part_of_an_attention_needs_its_place(group):
    adds = rf"\+{group}@sparse_attention\.{STAGES[group]}\.mine=mine adds it"
    with pytest.raises(SystemExit, match=adds):
        run.main(["attention=quest", f"{group}=mine"])


@pytest.mark.parametrize("values", ["interval(0,1)", "range(0,1000000000000)", "range(0,2)"])
def test_numbers_are_not_names_of_options(values):
    with pytest.raises(SystemExit, match=r"takes the name of an option, got numbers; take .*adakv"):
        run.main(["-m", f"attention={values}"])


@pytest.mark.parametrize("value", [5000 * "9", f"1,{5000 * '9'}", f"range(0,{5000 * '9'})"])
def test_a_number_of_thousands_of_digits_is_refused_by_name(value):
    with pytest.raises(SystemExit, match=r"^seed=.*9…: the number does not fit into 64 bits$"):
        run.main(["-m", f"seed={value}"])
