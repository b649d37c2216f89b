"""A mistake gets one clear message, no traceback, and leaves no results."""

import os

import pytest

TINY = ("model=tiny", "benchmark=mock")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["attention=nope"], ["attention/nope", "streaming_llm"]),
        (["atention=dense"], ["atention"]),
        (["attention.maskers.sink.tokens=3"], ["sparse_attention.maskers.sink.tokens="]),
        (["attention=dense", "sparse_attention=sparse"], ["attention= and sparse_attention="]),
        (["sparse_attention.maskers.sink.tokens=-1"], ["Sink", "-1", "at least 1"]),
        (["sparse_attention.dense_layers=[7]"], ["dense_layers", "7", "0 to 2"]),
        (["benchmark=ruler", "benchmark.subset=niah_9"], ["niah_9", "niah_multiquery"]),
        (["benchmark=ruler", "benchmark.context_tokens=64"], ["context_tokens=64", "too small"]),
        (["generation.temperature=hot"], ["temperature", "'hot'"]),
        (["+model.template_kwargs.enable_thinking=false"], ["enable_thinking", "does not read it"]),
        (["generation.thinking_tokens=5"], ["thinking_tokens=5", "mark that ends a thought"]),
        (["model=hf"], ["model.name_or_path"]),
        (["model=llama"], ["config.json", "hf download meta-llama/Llama-3.1-8B-Instruct"]),
        (["output_root=/proc/nope"], ["output_root", "/proc/nope"]),
    ],
    ids=lambda value: value[0] if isinstance(value[0], str) and "=" in value[0] else "",
)
def test_mistake_is_named(run, tmp_path, overrides, expected):
    from_the_hub = "model=llama" in overrides
    empty_hub = {"HF_HOME": str(tmp_path / "empty_hub")} if from_the_hub else {}
    done = run(*TINY, *overrides, environment=empty_hub)
    assert done.returncode == 1
    for part in expected:
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/*/*/*/*/predictions.jsonl"))
    assert not list(tmp_path.glob("outputs/*/*/*/*/results.json"))


def test_full_error_shows_the_traceback(run):
    done = run(*TINY, "seed=one", environment={"HYDRA_FULL_ERROR": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_a_name_cannot_leave_the_output_root(run, tmp_path):
    inside = tmp_path / "deep" / "outputs"
    done = run(*TINY, "model.name=../../../x", f"output_root={inside}")
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["deep"]
    assert len(list(inside.glob("*/*/*/*/results.json"))) == 1


def test_output_root_that_is_a_file_is_named(run, tmp_path):
    (tmp_path / "taken").write_text("not a folder")
    done = run(*TINY, "output_root=taken")
    assert done.returncode == 1
    assert "output_root" in done.stderr
    assert "'taken'" in done.stderr
    assert (tmp_path / "taken").read_text() == "not a folder"


def test_a_folder_without_a_model_is_named(run, tmp_path):
    (tmp_path / "empty").mkdir()
    done = run("model=hf", "model.name_or_path=empty", "benchmark=mock")
    assert done.returncode == 1
    assert "config.json" in done.stderr
    (error,) = tmp_path.glob("outputs/*/*/*/*/error.json")
    assert '"category": "model_not_found"' in error.read_text()


@pytest.mark.parametrize(
    "override", ["attention=null", "sparse_attention=[1,2]", "protocol=1.5", "tracker=dense,3"]
)
def test_an_option_that_is_not_a_name_is_refused_with_the_list_of_names(run, override):
    arguments = ("-m", "hydra/launcher=basic") if "," in override and "[" not in override else ()
    done = run(*TINY, override, *arguments)
    assert done.returncode == 1
    assert "takes the name of an option" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("name: [mine\n", "line 2"),
        ("name: mine\nname: yours\n", "line 2: the key 'name' is given twice"),
        ("name: !!python/name:os.system\n", "would make a Python object"),
        (b"name: \xff\n", "invalid start byte"),
        (f"limit: {5000 * '9'}\n", "line 1: a number of 5000 digits does not fit into 64 bits"),
    ],
    ids=["syntax", "duplicate", "tag", "encoding", "digits"],
)
def test_a_configuration_file_that_cannot_be_read_is_named(content, expected, run, tmp_path):
    path = tmp_path / "own" / "benchmark" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    done = run("--config-dir", "own", "model=tiny", "benchmark=mine")
    assert done.returncode == 1
    assert "own/benchmark/mine.yaml: " in done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("key", ["seed", "objective", "generation", "tracker", "model"])
def test_what_every_experiment_needs_cannot_be_deleted(key, run):
    done = run("-m", *TINY, f"~{key}", "hydra/launcher=basic")
    assert done.returncode == 1
    assert f"~{key}: every experiment has {key}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["hydra.job.chdir=true"], ["hydra.job.chdir=True is refused", "output_root="]),
        (["-m", "hydra.run.dir=x"], ["hydra.run.dir=x is refused", "output_root="]),
        (["timeout_minute=5"], ["is not a key of the configuration", "timeout_minutes?"]),
        (["-m", "+timeout_minute=5,6"], ["2 of 2 experiments", "timeout_minutes?"]),
        (["-m", "output_root=null"], ["output_root must be text, got None"]),
        (["output_root=" + 300 * "x"], ["output_root: cannot read", "File name too long"]),
        (["-m", "output_root=" + 300 * "x"], ["output_root: cannot write", "File name too long"]),
        (["-m", "attention=glob(denze*)"], ["matches no option", "did you mean dense?"]),
        (["-m", "seed=range(0,0)"], ["seed=range(0,0)", "without values"]),
        (["-m", "seed=range(0,3,0)"], ["seed=range(0,3,0)", "a step other than 0"]),
        (["-m", "seed=range(0,1000000000000)"], ["1,000,000,000,000 of seed", "at most"]),
        (["-m", "seed=interval(0,1)"], ["seed=interval(0,1)", "hydra/sweeper=optuna"]),
        (["-m", "seed=1,2", "attention=dense,denze"], ["attention=denze (2 experiments)"]),
        (["-m", "hydra.sweeper.max_batch_size=0"], ["max_batch_size must be at least 1"]),
        (["-m", "+hydra.launcher.gpu=1"], ["hydra.launcher.gpu is not", "hydra.launcher.gpus?"]),
        (["-m", "objective=scor"], ["objective='scor'", "'scor' is not defined"]),
        (["hydra.job.env_copy=[NOPE]"], ["Hydra cannot use its own settings", "'NOPE'"]),
        (["-m", "hydra/sweeper=optuna", "seed=range(0,0)"], ["a range without values"]),
        (["-m", "hydra/sweeper=optuna", "attention=glob(sp*)"], ["attention=sparse"]),
        (
            ["-m", "hydra/sweeper=optuna", "hydra.sweeper.storage=sqlite:///x.db"],
            [
                "hydra.sweeper.storage=sqlite:///x.db: a search takes no database",
                "leave the option",
            ],
        ),
        (["--info", "defaults", "model=nope"], ["Could not find 'model/nope'"]),
    ],
    ids=lambda value: " ".join(value)[:40] if any("=" in one for one in value) else "",
)
def test_a_mistake_about_the_run_itself_is_one_message(run, tmp_path, arguments, expected):
    flags = [one for one in arguments if one.startswith("-") or one == "defaults"]
    done = run(*flags, *TINY, *(one for one in arguments if one not in flags))
    assert done.returncode == 1
    for part in expected:
        assert done.stderr.count(part) == 1
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "outputs").rglob("*")) == []


def test_a_refused_sweep_leaves_the_record_of_the_sweep_before(run, tmp_path):
    assert run("-m", *TINY, "hydra/launcher=basic").returncode == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").rglob("*")}
    assert [path.parent.parent.name for path in before if path.name == "multirun.yaml"] == [
        ".sweeps"
    ]
    done = run("-m", *TINY, "benchmark.limit=0,-1")
    assert "2 of 2 experiments cannot work" in done.stderr
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "outputs").rglob("*")}
    assert after == before


def test_the_traceback_of_hydra_is_shown_if_asked_for(run):
    done = run("-m", *TINY, "seed=interval(0,1)", environment={"HYDRA_FULL_ERROR": "1"})
    assert done.returncode == 1
    assert "Traceback" in done.stderr
