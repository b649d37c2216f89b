"""`sah.run` and `sah.compose` do what the command line does, and leave nothing behind."""

import logging
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra

import sah
from sah.attention import SparseAttention
from sah.errors import ConfigurationError, Interrupted
from sah.evictors.snapkv import SnapKV
from sah.execution import attempts

ROOT = Path(__file__).resolve().parents[2]
TINY = ("model=tiny", "benchmark=mock", "benchmark.limit=2", "attention=streaming_llm")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_command_line_finds_the_result_of_a_run_and_the_other_way_round(run, calls, outcome):
    result = sah.run(*TINY)
    done = run(*TINY)
    assert done.returncode == 0, done.stderr
    assert str(result.directory) in done.stdout
    assert len(list(Path("outputs").glob("*/*/*/*/starts.jsonl"))) == 1
    found = outcome(result.directory)
    (result.directory / "results.json").unlink()
    assert run(*TINY).returncode == 0
    assert outcome(result.directory) == found
    computed = calls(attempts, "compute")
    again = sah.run(*TINY)
    assert (again.fingerprint, again.score) == (result.fingerprint, result.score)
    assert computed == []


def test_a_run_leaves_no_state_of_hydra_and_no_log_level_behind():
    assert not GlobalHydra.instance().is_initialized()
    level = logging.getLogger("sah").level
    sah.run(*TINY)
    assert not GlobalHydra.instance().is_initialized()
    assert logging.getLogger("sah").level == level


def test_a_run_inside_a_program_that_uses_hydra_leaves_its_configuration_alone():
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        before = GlobalHydra.instance().hydra
        sah.run(*TINY)
        assert GlobalHydra.instance().hydra is before
        assert hydra.compose("config", ["model=tiny", "seed=7"]).seed == 7


def test_an_interrupted_run_raises_keyboard_interrupt_and_resumes():
    from sah.execution.arm import Arm

    with pytest.MonkeyPatch.context() as patch:

        def interrupt(*_: object, **__: object) -> None:
            raise Interrupted(2)

        patch.setattr(Arm, "answer_group", interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"0 of 2 .*same overrides again to resume"):
            sah.run(*TINY)
    assert sah.run(*TINY).n == 2


def test_compose_returns_the_validated_experiment():
    experiment = sah.compose("model=tiny", "attention=snapkv", "seed=3")
    assert isinstance(experiment.sparse_attention, SparseAttention)
    assert experiment.sparse_attention.evictor == SnapKV(fraction=0.25)
    assert experiment.seed == 3
    assert not Path("outputs").exists()


def test_config_dir_adds_options():
    own = Path("my own'conf") / "sparse_attention"
    own.mkdir(parents=True)
    text = (ROOT / "conf/sparse_attention/streaming_llm.yaml").read_text()
    (own / "mine.yaml").write_text(text.replace("name: streaming_llm", "name: mine"))
    chosen = ("model=tiny", "sparse_attention=mine")
    assert sah.compose(*chosen, config_dir=own.parent).sparse_attention.name == "mine"
    with pytest.raises(ConfigurationError, match="Could not find 'sparse_attention/mine'"):
        sah.compose(*chosen)
    with pytest.raises(ConfigurationError, match="config_dir='missing' is not a folder"):
        sah.compose(*chosen, config_dir="missing")
    (own / "torn.yaml").write_text("a: 1\na: 2\n")
    with pytest.raises(ConfigurationError, match="the key 'a' is given twice"):
        sah.compose(*chosen, config_dir=own.parent)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("-m", "-m is a flag of the command line"),
        ("seed=1,2", "seed=1,2 has several values"),
        ("hydra.run.dir=here", "hydra.run.dir=here is a setting of Hydra"),
        ("hydra/launcher=slurm", "hydra/launcher=slurm is a setting of Hydra"),
        ("attention=qest", "did you mean quest"),
        ("attention.maskers.sink.tokens=1", "attention= only chooses"),
        ("model=3", "model takes the name of an option, got 3"),
        ("~model", "every experiment has model"),
        ("benchmark.limit=-1", "benchmark.limit must be at least 1, got -1"),
        ("retries=-1", "retries must be at least 0, got -1"),
        ("sede=1", "did you mean seed"),
        ("output_root='~/here'", "output_root='~/here' would be a folder named ~"),
        (3, "3 is not an override"),
    ],
)
def test_what_the_command_line_refuses_is_an_exception_of_sah(override, message):
    with pytest.raises(ConfigurationError) as refused:
        sah.run("model=tiny", "benchmark=mock", override)
    assert message in str(refused.value)
    assert not Path("outputs").exists()
