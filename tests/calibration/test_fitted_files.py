"""The subcommands as a user calls them, with the tiny model."""

import os
import pickle
from importlib import import_module

import orjson
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import load_file

from sah.calibration.fitted_files import calibrate, convert
from sah.content.calibration_files import SUFFIXES, calibration_path, find_calibration
from sah.errors import ConfigurationError

SHORT = ("tokens=1500", "passage_tokens=1024")


@pytest.fixture
def home(tmp_path):
    return {"SAH_CACHE": str(tmp_path / "cache")}


def test_an_uncalibrated_method_names_the_command_that_calibrates_it(run, home, tmp_path):
    experiment = ("model=tiny", "attention=double_sparsity", "benchmark=mock")
    before = run(*experiment, environment=home)
    assert before.returncode == 1
    assert "sah calibrate double_sparsity model=tiny" in before.stderr
    assert "Traceback" not in before.stderr
    done = run("calibrate", "double_sparsity", "model=tiny", *SHORT, environment=home)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("cache/calibration/double_sparsity/*")
    assert str(file) in done.stderr
    assert b" " not in file.read_bytes()
    after = run(*experiment, environment=home)
    assert after.returncode == 0, after.stderr


def test_hash_attention_finds_its_trained_networks(run, home, tmp_path):
    short = (*SHORT, "steps=2", "bits=12", "hidden=8")
    done = run("calibrate", "hash_attention", "model=tiny", *short, environment=home)
    assert done.returncode == 0, done.stderr
    assert "recall of the best tenth" in done.stderr
    tensors = load_file(tmp_path / "cache/calibration/hash_attention/tiny.safetensors")
    assert tensors["layers.0.query.0.weight"].shape == (4, 16, 8)
    assert tensors["layers.0.key.1.bias"].shape == (4, 12)
    after = run("model=tiny", "attention=hash_attention", "benchmark=mock", environment=home)
    assert after.returncode == 0, after.stderr


def test_duo_attention_finds_its_trained_scores(compose, monkeypatch, tmp_path):
    monkeypatch.setenv("SAH_CACHE", str(tmp_path))
    evictor = ("model=tiny", "attention=duo_attention")
    with pytest.raises(InstantiationException, match="sah calibrate duo_attention model=tiny"):
        instantiate(compose(*evictor).sparse_attention.evict.duo_attention)
    short = ("tokens=1500", "passage_tokens=900", "steps=2", "recent=32", "sinks=4", "passkeys=3")
    file = calibrate("duo_attention", ("model=tiny", *short))
    assert file == tmp_path / "calibration/duo_attention/tiny.tsv"
    rows = [[float(score) for score in row.split("\t")] for row in file.read_text().splitlines()]
    assert [len(row) for row in rows] == [2, 2, 2]
    assert 0 <= min(map(min, rows)) < max(map(max, rows)) <= 1
    config = compose(*evictor).sparse_attention.evict.duo_attention
    settled = OmegaConf.to_container(config, resolve=True)
    assert settled["heads"].startswith("tiny@")
    instantiate(settled)
    file.write_text("1\t0\n" * 3)
    with pytest.raises(InstantiationException, match="has changed since"):
        instantiate(settled)


def test_text_and_output_can_be_chosen(run, home, tmp_path):
    (tmp_path / "text.txt").write_text("The sky is blue. " * 100)
    done = run(
        *("calibrate", "double_sparsity", "model=tiny", "model.layers=1", "text=text.txt"),
        *("output=deep/channels.json", "tokens=200", "passage_tokens=100"),
        environment=home,
    )
    assert done.returncode == 0, done.stderr
    assert len(orjson.loads((tmp_path / "deep/channels.json").read_bytes())) == 3
    assert not (tmp_path / "cache/calibration").exists()


def test_a_published_file_is_converted(run, home, tmp_path):
    linear = {"matrix": [torch.ones(4, 16, 8)], "bias": [torch.zeros(4, 8)]}
    of_layer = {f"{kind}_{part}": linear[part] for kind in ("query", "key") for part in linear}
    (tmp_path / "published.pkl").write_bytes(pickle.dumps(dict.fromkeys(range(3), of_layer)))
    done = run("convert", "hash_attention", "published.pkl", "model=tiny", environment=home)
    assert done.returncode == 0, done.stderr
    tensors = load_file(tmp_path / "cache/calibration/hash_attention/tiny.safetensors")
    assert len(tensors) == 12
    assert tensors["layers.2.key.0.weight"].equal(linear["matrix"][0])


def test_a_mistake_is_reported_in_one_message(run, home, tmp_path):
    done = run("calibrate", "double_sparsity", "model=nope", environment=home)
    assert done.returncode == 1
    assert "model/nope" in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("command", ["calibrate", "convert"])
def test_a_command_without_arguments_says_what_it_needs(command, capsys):
    with pytest.raises(SystemExit) as ended:
        import_module(f"sah.cli.{command}").main([])
    assert ended.value.code == 2
    assert f"sah {command}: the following arguments are required: METHOD" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("quest model=tiny", ["'quest'", "double_sparsity or hash_attention or duo_attention"]),
        ("double_sparsity", ["model=NAME", "smollm2", "tiny"]),
        ("double_sparsity model=nope", ["model/nope", "smollm2"]),
        ("double_sparsity model=hf", ["name_or_path"]),
        ("double_sparsity model=tiny bits=3", ["bits=3", "passage_tokens="]),
        ("hash_attention model=tiny bits=x", ["bits", "'x'"]),
        ("double_sparsity model=tiny tokens=0", ["tokens", "0"]),
        ("double_sparsity model=tiny text=none.txt", ["none.txt"]),
        ("double_sparsity model=tiny passage_tokens=9999", ["9999", "8192"]),
        ("double_sparsity model=tiny model.heads=3", ["model", "heads=3"]),
        ("double_sparsity model=tiny steps=3", ["steps=3", "seed="]),
        ("duo_attention model=tiny bits=3", ["bits=3", "passkey_words="]),
        ("duo_attention model=tiny passkeys=11", ["at most 10", "11"]),
        ("duo_attention model=tiny passage_tokens=9999", ["9999", "8192"]),
    ],
)
def test_calibrate_names_the_mistake(arguments, expected):
    method, *rest = arguments.split()
    with pytest.raises(ConfigurationError) as caught:
        calibrate(method, rest)
    assert all(part in str(caught.value) for part in expected), caught.value


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("hash_attention model=tiny", ["one published file", "weights.pt"]),
        ("hash_attention none.pt", ["model=NAME", "smollm2"]),
        ("hash_attention none.pt model=tiny", ["none.pt", "cannot be read"]),
        ("quest none.pt model=tiny", ["'quest'", "hash_attention"]),
    ],
)
def test_convert_names_the_mistake(arguments, expected):
    method, *rest = arguments.split()
    with pytest.raises(ConfigurationError) as caught:
        convert(method, rest)
    assert all(part in str(caught.value) for part in expected), caught.value


@pytest.mark.parametrize("method", SUFFIXES)
def test_the_bundled_model_is_calibrated(method, monkeypatch, tmp_path):
    monkeypatch.setenv("SAH_CACHE", str(tmp_path))
    shipped = find_calibration(method, "smollm2")
    assert shipped.parts[-3:] == ("shipped", method, f"smollm2{SUFFIXES[method]}")
    assert shipped.stat().st_size < 4 * 2**20
    assert not calibration_path(method, "smollm2").exists()
