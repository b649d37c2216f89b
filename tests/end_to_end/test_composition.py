"""Every documented way to compose an attention from the command line."""

import json

import pytest
from omegaconf import OmegaConf

from sah.execution.experiment import Experiment

TINY = ("model=tiny", "benchmark=mock", "benchmark.limit=1")
SINK, LOCAL = ("Sink", 4), ("Local", 64)
TOP_K, RANDOM = ("OracleTopK", 0.1), ("RandomSampling", 0.1)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ["sparse_attention.maskers.sink.tokens=7"],
            {"sink": ("Sink", 7), "local": LOCAL, "oracle_top_k": TOP_K},
        ),
        (
            ["masker@sparse_attention.maskers.oracle_top_k=random_sampling"],
            {"sink": SINK, "local": LOCAL, "oracle_top_k": RANDOM},
        ),
        (["~sparse_attention.maskers.sink"], {"local": LOCAL, "oracle_top_k": TOP_K}),
        (
            ["+masker@sparse_attention.maskers.tail=random_sampling"],
            {"sink": SINK, "local": LOCAL, "oracle_top_k": TOP_K, "tail": RANDOM},
        ),
        (
            [
                "attention=custom",
                "+masker@sparse_attention.maskers.first=sink",
                "+masker@sparse_attention.maskers.rest=oracle_top_k",
                "sparse_attention.maskers.rest.fraction=null",
                "sparse_attention.maskers.rest.tokens=5",
            ],
            {"first": SINK, "rest": ("OracleTopK", 5)},
        ),
    ],
)
def test_masker_spellings_compose(compose, overrides, expected):
    config = compose("model=tiny", "benchmark=mock", *overrides)
    maskers = Experiment.from_config(config).sparse_attention.maskers
    found = {
        name: (type(one).__name__, getattr(one, "tokens", None) or one.fraction)
        for name, one in maskers.items()
    }
    assert found == expected
    assert list(found) == list(expected), "maskers are applied in order"


def test_attention_is_another_name_of_sparse_attention(run, result_folders):
    run(*TINY, "attention=streaming_llm")
    again = run(*TINY, "sparse_attention=streaming_llm")
    assert len(result_folders()) == 1
    assert result_folders()[0].name in again.stdout


@pytest.mark.parametrize("flag", [["--cfg", "job"], ["--cfg", "all"], ["--info", "defaults"]])
def test_attention_works_with_the_flags_of_hydra(run, flag):
    done = run(*TINY, "attention=dense", *flag)
    assert done.returncode == 0, done.stderr
    assert "dense" in done.stdout


def test_study_file_outside_the_repository_composes(run, tmp_path, result_folders):
    study = tmp_path / "studies"
    study.mkdir()
    (study / "small.yaml").write_text(
        "defaults:\n  - config\n  - override model: tiny\n  - override benchmark: mock\n"
        "  - override attention: streaming_llm\n  - _self_\n"
        "benchmark:\n  limit: 1\n"
    )
    done = run("--config-dir", "studies", "--config-name", "small")
    assert done.returncode == 0, done.stderr
    (folder,) = result_folders()
    assert json.loads((folder / "results.json").read_text())["attention"] == "streaming_llm"


def test_own_attention_file_outside_the_repository_composes(run, tmp_path, result_folders):
    own = tmp_path / "own" / "sparse_attention"
    own.mkdir(parents=True)
    (own / "wide.yaml").write_text(
        "defaults:\n  - /masker@maskers.local: local\n  - _self_\n"
        "_target_: sah.attention.SparseAttention\nname: wide\n"
        "maskers:\n  local:\n    tokens: 128\n"
    )
    done = run("--config-dir", "own", *TINY, "sparse_attention=wide")
    assert done.returncode == 0, done.stderr
    (folder,) = result_folders()
    config = OmegaConf.load(folder / "config.yaml")
    assert config.sparse_attention.maskers.local.tokens == 128
