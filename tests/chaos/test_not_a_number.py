"""A model whose output is NaN: the error names the example, and no score includes it."""

import orjson
import pytest
import torch

from sah.attention import DenseAttention
from sah.attention.session import AttentionSession
from sah.errors import NonFiniteLogits
from sah.metric_logging import MetricLogging
from sah.models.language_model import LanguageModel
from sah.results import ResultStore, directory
from sah.results.aggregate import summarise
from sah.types import Score


@pytest.fixture
def break_model(monkeypatch):
    """Make every logit NaN after the given number of stored answers."""

    def install(after):
        real_append, stored = ResultStore.append, []
        real_forward, real_rows = LanguageModel.forward, LanguageModel.decode_rows

        def append(store, prediction):
            real_append(store, prediction)
            stored.append(prediction)

        def forward(model, ids, cache, *, logits):
            computed = real_forward(model, ids, cache, logits=logits)
            return computed * torch.nan if len(stored) >= after else computed

        def decode_rows(model, *arguments):
            computed = real_rows(model, *arguments)
            return computed * torch.nan if len(stored) >= after else computed

        monkeypatch.setattr(ResultStore, "append", append)
        monkeypatch.setattr(LanguageModel, "forward", forward)
        monkeypatch.setattr(LanguageModel, "decode_rows", decode_rows)

    return install


@pytest.mark.parametrize(
    ("overrides", "after", "example"),
    [
        (("generation.temperature=0.8", "generation.batch_rows=1"), 2, "mock-2"),
        (("generation.batch_rows=2",), 2, "mock-2"),
        (("generation.batch_rows=8",), 0, "mock-0"),
        (("protocol=forced",), 0, "mock-0"),
    ],
)
def test_the_error_names_the_example_and_the_run_has_no_score(
    overrides, after, example, break_model, here, configure, monkeypatch
):
    break_model(after)
    with pytest.raises(NonFiniteLogits, match=f"example '{example}': .*nan"):
        here(*overrides)
    monkeypatch.undo()
    folder = directory(configure(*overrides))
    error = orjson.loads((folder / "error.json").read_bytes())
    assert (error["category"], example in error["message"]) == ("non_finite", True)
    assert not (folder / "results.json").exists()
    # Once the model works again, the experiment goes on.
    here(*overrides)
    results = orjson.loads((folder / "results.json").read_bytes())
    assert (results["n"], results["score"] is None) == (5, False)


def test_the_loss_of_a_continuation_is_never_nan(tiny, break_model):
    ids = tiny.prompts.tokenizer("the grass is green").input_ids
    context = tiny.prefill(ids, reserve_tokens=len(ids))
    break_model(0)
    session = AttentionSession(DenseAttention(), seed=0)
    session.begin_context(context.length)
    session.begin_example("a")
    with pytest.raises(NonFiniteLogits, match="the loss of the continuation is not finite"):
        tiny.continuation_loss(context, ids, session=session)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_not_finite_is_refused_and_not_averaged(score, prediction):
    scores = [Score(example_id="a", task="task", score=score)]
    with pytest.raises(ValueError, match=f"example 'a' is {score}"):
        summarise([prediction("a")], scores, load_seconds=0.0)


def test_a_metric_that_is_nan_is_null_in_its_record(tmp_path):
    recall = "research_attention_recall"
    logging = MetricLogging(name="recall", enabled_metrics=[recall])
    metrics = logging.logger(tmp_path / "metrics.jsonl", seed=0)
    metrics.begin_example("a")
    metrics.log(recall, torch.tensor(torch.nan))
    metrics.close()
    assert orjson.loads((tmp_path / "metrics.jsonl").read_bytes())["value"] is None
