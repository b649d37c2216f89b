"""Trackers receive the numbers of results.json; what cannot work is told before a run."""

import socket
import sys
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from sah.errors import ConfigurationError
from sah.execution.checks import check
from sah.results.schema import Provenance, TaskResult
from sah.tracking import Record, require_working
from sah.tracking.mlflow import MlflowTracker
from sah.tracking.tensorboard import TensorBoardTracker
from sah.tracking.wandb import WandbTracker


@pytest.fixture
def result(make_result, tmp_path):
    return make_result(
        directory=tmp_path,
        score=0.75,
        n=4,
        tasks={"vt": TaskResult(score=0.75, stderr=None, n=4, contexts=4, metrics={"words": 2.0})},
        density=0.125,
        provenance=Provenance(
            git_commit="c0ffee", host="here", device="cpu", git_dirty=True, finished="2026-11-26"
        ),
        config={"seed": 3, "model": {"name": "tiny", "revision": None}, "list": [0, 1]},
    )


@pytest.fixture
def record(result) -> Record:
    return Record.from_result(result)


def test_a_record_has_every_measured_number_and_no_others(record):
    numbers = dict(record.numbers)
    timing = {name for name in numbers if name.startswith("timing/")}
    assert len(timing) == 6
    assert {name: value for name, value in numbers.items() if name not in timing} == {
        "score": 0.75,
        "n": 4.0,
        "density": 0.125,
        "truncated": 0.0,
        "unfinished_thoughts": 0.0,
        "tasks/vt/score": 0.75,
        "tasks/vt/n": 4.0,
        "tasks/vt/contexts": 4.0,
        "tasks/vt/metrics/words": 2.0,
    }


def test_settings_are_flat_and_without_null(record):
    assert record.settings == {"seed": 3, "model.name": "tiny", "list": "[0, 1]"}


def test_a_rescored_result_is_another_result(result):
    rescored = replace(result.provenance, rescored={"finished": "2026-11-27T10:00:00+00:00"})
    first, second = result, replace(result, provenance=rescored)
    tags = [Record.from_result(one).tags["result"] for one in (first, first, second)]
    assert tags == ["0123abcd-2026-11-26"] * 2 + ["0123abcd-2026-11-27T10-00-00-00-00"]


@pytest.fixture
def mlflow_store(tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return f"file:{tmp_path / 'mlruns'}"


def test_tensorboard_reads_back_what_was_logged(tmp_path, record):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="the extra tensorboard is not installed",
    )
    tracker = TensorBoardTracker(folder=str(tmp_path))
    tracker.check()
    assert not tracker.has(record)
    tracker.log(record)
    events = accumulator.EventAccumulator(str(tmp_path / "tiny/sparse/ruler/0123abcd"))
    events.Reload()
    assert events.Scalars("score")[0].value == 0.75
    assert events.Scalars("tasks/vt/score")[0].value == 0.75
    assert tracker.has(record)
    again = replace(record, tags={**record.tags, "result": "another"})
    assert not tracker.has(again)
    tracker.log(again)
    assert tracker.has(again)
    assert tracker.has(record)


def test_mlflow_reads_back_what_was_logged_from_a_file_store(mlflow_store, record):
    from mlflow.tracking import MlflowClient

    tracker = MlflowTracker(uri=mlflow_store)
    tracker.check()
    assert not tracker.has(record)
    tracker.log(record)
    assert tracker.has(record)
    assert not tracker.has(replace(record, tags={**record.tags, "result": "another"}))
    tracker.log(record)
    client = MlflowClient(tracking_uri=mlflow_store)
    experiment = client.get_experiment_by_name("sah")
    runs = client.search_runs([experiment.experiment_id])
    assert len(runs) == 2, "each repetition is an MLflow run"
    assert runs[0].data.metrics["score"] == 0.75
    assert runs[0].data.params["model.name"] == "tiny"
    assert runs[0].data.tags["git_commit"] == "c0ffee"
    assert runs[0].info.status == "FINISHED"


def test_mlflow_has_one_run_of_an_experiment_that_was_interrupted(mlflow_store, record):
    from mlflow.tracking import MlflowClient

    tracker = MlflowTracker(uri=mlflow_store)
    start = replace(record, tags={"run": record.run}, numbers={})
    first = tracker.open(start)
    first.advance({"progress/score": 1.0}, 1)
    first.stop()
    # Continued from another folder, which is a setting that MLflow would not change.
    moved = {**record.settings, "seed": 4}
    second = tracker.open(replace(start, settings=moved))
    second.advance({"progress/score": 0.5}, 2)
    client = MlflowClient(tracking_uri=mlflow_store)
    experiment = client.get_experiment_by_name("sah").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "RUNNING"
    assert not tracker.has(record)
    second.finish(record)
    (run,) = client.search_runs([experiment])
    history = client.get_metric_history(run.info.run_id, "progress/score")
    assert [(one.step, one.value) for one in history] == [(1, 1.0), (2, 0.5)]
    assert run.info.status == "FINISHED"
    assert run.data.metrics["score"] == 0.75
    assert tracker.has(record)


def test_a_deleted_mlflow_experiment_is_refused(mlflow_store):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=mlflow_store)
    client.delete_experiment(client.create_experiment("sah"))
    with pytest.raises(ConfigurationError, match="experiment 'sah' is deleted; restore it"):
        require_working(MlflowTracker(uri=mlflow_store))


def test_an_mlflow_server_that_does_not_answer_is_refused_at_once(monkeypatch):
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    monkeypatch.delenv("http_proxy", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConfigurationError, match=rf"uri=http://127\.0\.0\.1:{port} does not"):
        require_working(MlflowTracker(uri=f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("uri", ["nonsense://x", "file:/dev/null/x"])
def test_an_mlflow_store_that_cannot_work_is_refused(uri, mlflow_store):
    with pytest.raises(ConfigurationError, match=r"MlflowTracker cannot store results: .*x"):
        require_working(MlflowTracker(uri=uri))


def test_a_tensorboard_folder_that_cannot_be_written_is_refused(tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"tracker\.folder: cannot write to .*file/x"):
        require_working(TensorBoardTracker(folder=str(tmp_path / "file" / "x")))


@pytest.mark.parametrize(
    ("tracker", "package", "extra"),
    [
        (MlflowTracker(), "mlflow", "mlflow"),
        (TensorBoardTracker(folder="x"), "tensorboard", "tensorboard"),
        (WandbTracker(package="trackio"), "trackio", "trackio"),
        (WandbTracker(), "wandb", "wandb"),
    ],
)
def test_a_missing_package_is_named_with_the_extra_that_installs_it(
    tracker, package, extra, monkeypatch
):
    monkeypatch.setattr("sah.tracking.record.find_spec", lambda name: None)
    expected = rf"the package {package} is not installed: pip install 'sah\[{extra}\]'; to run"
    with pytest.raises(ConfigurationError, match=expected):
        require_working(tracker)


def fake_wandb(mode="online", login=lambda prompt: True, **fields):
    settings = SimpleNamespace(mode=mode)
    return SimpleNamespace(setup=lambda: SimpleNamespace(settings=settings), login=login, **fields)


def refusing_login(prompt):
    raise ConnectionError("no route to api.wandb.ai")


OLD = {"login": lambda: True, "api": SimpleNamespace(api_key=None)}


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        (fake_wandb(login=lambda prompt: False), "no API key here; run `wandb login`"),
        (fake_wandb(**OLD), "no API key here"),
        (fake_wandb(login=refusing_login), "no route to"),
        (fake_wandb("disabled"), "WANDB_MODE=disabled stores nothing"),
    ],
)
def test_wandb_without_a_login_is_refused(package, expected, monkeypatch):
    monkeypatch.setattr("sah.tracking.record.find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "wandb", package)
    with pytest.raises(ConfigurationError, match=expected):
        require_working(WandbTracker())


def test_wandb_works_with_a_login_or_offline(monkeypatch):
    monkeypatch.setattr("sah.tracking.record.find_spec", lambda name: name)
    for package in (fake_wandb(), fake_wandb("offline", login=refusing_login)):
        monkeypatch.setitem(sys.modules, "wandb", package)
        require_working(WandbTracker())


@dataclass
class FakeRun:
    """A run of wandb or trackio: what it was begun with, and what was done to it."""

    given: dict
    done: list = field(default_factory=list)

    @property
    def config(self):
        return SimpleNamespace(update=lambda new, **_: self.given["config"].update(new))

    def log(self, numbers, step=None):
        self.done.append((step, numbers))

    def finish(self, **fields):
        self.done.append(("finish", fields))


@pytest.fixture
def wandb_runs(monkeypatch):
    """The runs that wandb has begun."""
    begun = []

    def init(**given):
        begun.append(FakeRun(given))
        return begun[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    return begun


def test_the_run_of_wandb_has_the_id_of_the_experiment(record, wandb_runs):
    WandbTracker().log(record)
    WandbTracker(group="rebuttal", job_type="baseline").log(record)
    first, second = (run.given for run in wandb_runs)
    assert (first["id"], first["resume"]) == ("0123abcd-2026-11-26", "allow")
    assert (first["group"], first["job_type"]) == ("tiny/ruler", "sparse")
    assert (second["group"], second["job_type"]) == ("rebuttal", "baseline")
    assert wandb_runs[0].done == [(None, dict(record.numbers)), ("finish", {})]


def test_wandb_gets_live_numbers_and_the_result_in_one_run(record, wandb_runs):
    live = WandbTracker().open(replace(record, tags={"run": record.run}, numbers={}))
    live.advance({"progress/score": 0.5}, 2)
    live.finish(record)
    (run,) = wandb_runs
    assert run.done == [
        (2, {"progress/score": 0.5}),
        (None, dict(record.numbers)),
        ("finish", {}),
    ]
    assert run.given["config"]["tag/result"] == record.tags["result"]
    WandbTracker().open(record).stop()
    assert wandb_runs[1].given["id"] == run.given["id"]
    assert wandb_runs[1].done == [("finish", {"exit_code": 1})]


def test_trackio_has_neither_groups_nor_job_types():
    with pytest.raises(ValueError, match="group and job_type are of wandb"):
        WandbTracker(package="trackio", group="x")


class FakeTrackio:
    """Stores the configuration of a run when it is begun or continued, as trackio does."""

    def __init__(self):
        self.stored = {"another": SimpleNamespace(config=None)}
        self.resumed = []

    def init(self, *, name, config, resume, **_):
        self.resumed.append(resume)
        key = name if resume == "allow" else f"{name}-{len(self.stored)}"
        self.stored[key] = SimpleNamespace(config=config)
        return FakeRun({})

    def Api(self):
        return SimpleNamespace(runs=lambda project: list(self.stored.values()))


def test_trackio_continues_the_run_of_the_same_computation_only(record, monkeypatch):
    trackio, tracker = FakeTrackio(), WandbTracker(package="trackio")
    monkeypatch.setitem(sys.modules, "trackio", trackio)
    start = replace(record, tags={"run": record.run}, numbers={})
    assert not tracker.has(record)
    tracker.open(start).stop()
    assert not tracker.has(record)
    tracker.open(start).finish(record)
    assert tracker.has(record)
    again = {"run": "again", "result": "again"}
    tracker.log(replace(record, run="again", tags=again))
    assert trackio.resumed == ["never", "allow", "allow", "never"]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["tracker=mlflow", "tracker.uri=5"], "tracker.uri must be text or null, got 5"),
        (["tracker=mlflow", "tracker.uri="], "tracker: uri is empty; give it a value"),
        (["tracker=wandb", "tracker.project=' '"], "tracker: project is empty"),
        (["tracker=tensorboard", "tracker.folder="], "tracker: folder is empty"),
        (["tracker=wandb", "tracker.package=aim"], "tracker.package must be"),
        (["tracker=tensorboard", "+tracker.dir=x"], "tracker.dir is not a key of TensorBoardTr"),
        (["tracker=none", "tracker._target_=no.such.Tracker"], "cannot|is not a class"),
        (["tracker=tensorboard", "tracker.folder=/dev/null/x"], "tracker.folder: cannot write"),
    ],
)
def test_a_wrong_option_is_refused_before_an_experiment_is_run(overrides, expected, configure):
    config = configure("model=tiny", "benchmark=mock", *overrides)
    with pytest.raises(ConfigurationError, match=expected):
        check(config, overrides)


def test_the_cells_of_a_sweep_check_their_tracker_once(configure, calls, tmp_path):
    checks = calls(TensorBoardTracker, "check")
    for seed in range(3):
        check(configure("model=tiny", "benchmark=mock", "tracker=tensorboard", f"seed={seed}"), [])
    assert len(checks) == 1


@pytest.mark.parametrize("sweep", [(), ("-m", "seed=1,2")])
def test_a_tracker_that_cannot_work_is_refused_before_anything_runs(sweep, run, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed")
    chosen = ("tracker=tensorboard", "tracker.folder=/dev/null/x")
    done = run(*sweep, "model=tiny", "benchmark=mock", *chosen)
    assert done.returncode == 1
    assert done.stderr.count("TensorBoardTracker cannot store results: ") == 1
    assert "sah track FOLDER" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("config.yaml"))
