"""Arms on a model with its own indexer: on under attention=native, off under every other."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from zoo import small_config, small_model

from sah.attention.prefill.reading import OwnPrefill
from sah.errors import ConfigurationError
from sah.execution.attempts import compute, compute_arms
from sah.models.language_model import LanguageModel
from sah.models.tiny import tiny_tokenizer
from sah.results import directory
from sah.results.show import show_result

# Without ties between keys, which a pass of another length would break in another way.
VALUES = {"index_n_heads": 32}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deepseek")
    small_model("deepseek_v32", **VALUES).save_pretrained(folder)
    small_config("deepseek_v32", **VALUES).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def configure(configure: Any, checkpoint: Path) -> Any:
    """Compose an experiment of the mock benchmark on a tiny DeepSeek-V3.2."""
    model = ("model=hf", f"model.name_or_path={checkpoint}", "model.device=cpu")
    short = ("benchmark=mock", "benchmark.limit=3", "generation.max_new_tokens=4")
    return partial(configure, *model, *short, "metric_logging=full")


@pytest.fixture
def prefills(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the indexer was on, for each prefill."""
    found: list[bool] = []
    prefill = LanguageModel.prefill

    def noted(model: LanguageModel, *ids: Any, sparse: Any = None, **more: Any) -> Any:
        found.append(sparse == OwnPrefill())
        return prefill(model, *ids, sparse=sparse, **more)

    monkeypatch.setattr(LanguageModel, "prefill", noted)
    return found


@pytest.mark.parametrize("overrides", [(), ("protocol=forced",)], ids=["free", "forced"])
def test_native_beside_other_arms_has_the_results_of_a_separate_run(
    configure: Any,
    outcome: Callable[[Path], Any],
    prefills: list[bool],
    overrides: Any,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    names = ("dense", "native", "streaming_llm")
    configs = [configure(f"attention={name}", *overrides, root="together") for name in names]
    arms = compute_arms([(config, list(overrides)) for config in configs])
    assert [arm.error for arm in arms] == [None] * 3
    results = {arm.result.attention: arm.result for arm in arms if arm.result is not None}
    assert {name: result.own_indexer for name, result in results.items()} == {
        "dense": "off",
        "native": "on",
        "streaming_llm": "off",
    }
    contexts = prefills.count(True)
    # The dense one is shared with the dense answer that all follow under teacher forcing.
    assert prefills.count(False) == contexts > 0

    native = results["native"]
    assert native.density == pytest.approx(native.rows_read)
    assert 0 < (native.density or 0) < 0.2
    assert (native.output_error or 0) > 0.01
    assert 0 < (native.recall or 0) < 1
    assert 0 < (native.prefill_density or 0) < 0.2
    assert results["dense"].prefill_density == 1
    # Per layer, the indexer caches 16 numbers a token, and attention 16 + 8.
    assert native.resident == pytest.approx(1 + 16 / 24)
    assert native.index_bytes == {"native": 16 * 4}
    assert results["dense"].resident == results["streaming_llm"].resident == 1

    alone = configure("attention=native", *overrides, root="alone")
    compute(alone, list(overrides))
    assert outcome(directory(configs[1])) == outcome(directory(alone))
    said = [line.split(":")[0] for line in caplog.messages if "own indexer is" in line]
    show_result(results["dense"])
    assert "the model's own indexer was off\n" in capsys.readouterr().out
    on, off = "the model's own indexer is on", "the model's own indexer is off"
    assert said == [off, on, off, on]


@pytest.mark.parametrize("attention", ["knorm", "kivi", "h2o_decoding"])
def test_eviction_and_rewriting_are_refused_before_the_prefill(
    configure: Any, prefills: list[bool], attention: str
) -> None:
    with pytest.raises(ConfigurationError, match="the model's own indexer"):
        compute(configure(f"attention={attention}"), [])
    assert prefills == []


@pytest.mark.parametrize("attention", ["native", "dense"])
def test_answers_are_decoded_one_by_one(configure: Any, calls: Any, attention: str) -> None:
    steps = calls(LanguageModel, "decode_rows")
    result = compute(configure(f"attention={attention}", "generation.batch_rows=4"), [])
    assert result.n == 3
    assert steps == []


def test_a_dense_question_is_refused(configure: Any, prefills: list[bool]) -> None:
    with pytest.raises(ConfigurationError, match="protocol=question_dense reads the question"):
        compute(configure("attention=native", "protocol=question_dense"), [])
    assert prefills == []
