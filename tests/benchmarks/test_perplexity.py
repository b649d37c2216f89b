import math

import pytest
import torch

from sah.benchmarks.perplexity import Perplexity
from sah.errors import ConfigurationError
from sah.execution.attempts import compute


@pytest.fixture(scope="module")
def examples(tiny):
    return Perplexity(context_tokens=1200, continuation_tokens=100, samples=3).examples(
        tiny.prompts, seed=0
    )


def test_continuations_follow_their_contexts_in_the_text(examples):
    from sah.benchmarks.haystacks import prose

    bible = " ".join(prose())
    for example in examples[:3]:
        assert (example.context + example.question).strip() in bible
    assert [example.task for example in examples] == ["kjv"] * 3 + ["factbook"] * 3


def test_context_and_continuation_fill_the_budget(examples, tiny):
    for example in examples:
        length = tiny.prompts.prompt_length(example)
        # A line of the Factbook may be as long as a page.
        assert (1000 if example.task == "kjv" else 200) < length <= 1199
        assert len(tiny.prompts.tokenizer(example.question).input_ids) >= 100
        assert example.is_continuation


def test_a_longer_context_precedes_the_same_continuation(examples, tiny):
    longer = Perplexity(context_tokens=2400, continuation_tokens=100, samples=3).examples(
        tiny.prompts, seed=0
    )
    for short, long in zip(examples, longer, strict=True):
        assert short.question == long.question
        assert long.context.endswith(short.context)
        assert len(long.context) > len(short.context)


def test_a_continuation_that_leaves_no_context_is_an_error():
    with pytest.raises(ConfigurationError, match="continuation_tokens=512 leaves no context"):
        Perplexity(context_tokens=512, continuation_tokens=512)


def test_the_score_is_the_mean_probability_of_a_token(examples, predict):
    (prediction,) = predict(examples[:1], lambda example: "")
    from dataclasses import replace

    (score,) = Perplexity().score(examples[:1], [replace(prediction, loss=math.log(4))])
    assert score.score == pytest.approx(0.25)
    assert score.details["nats_per_token"] == pytest.approx(math.log(4))
    assert score.details["perplexity"] == pytest.approx(4)


@pytest.fixture
def run(compose, tmp_path):
    def start(*overrides):
        config = compose(
            *("model=tiny", "benchmark=perplexity", "benchmark.subset=kjv", "benchmark.samples=2"),
            *("benchmark.context_tokens=900", "benchmark.continuation_tokens=300"),
            *(f"output_root={tmp_path}", *overrides),
        )
        return compute(config, list(overrides))

    return start


def test_dense_loss_equals_that_of_one_forward_pass(run, tiny):
    """The forward pass over the whole text uses none of our code."""
    result = run("attention=dense", f"model.layers={tiny.model.config.num_hidden_layers}")
    losses = []
    for example in Perplexity(
        subset="kjv", samples=2, context_tokens=900, continuation_tokens=300
    ).examples(tiny.prompts, seed=0):
        prompt = tiny.prompts.encode(example)
        ids = torch.tensor([prompt.context_ids + prompt.question_ids])
        with torch.inference_mode():
            logits = tiny.model(input_ids=ids).logits[0].float()
        begin = len(prompt.context_ids)
        chances = torch.log_softmax(logits, dim=-1)
        counted = range(begin, ids.shape[1] - 1)
        losses.append(-sum(chances[n, ids[0, n + 1]].item() for n in counted) / len(counted))
    metrics = result.tasks["kjv"].metrics
    assert metrics["nats_per_token"] == pytest.approx(sum(losses) / 2, rel=1e-4)
    assert result.density == 1.0


def test_a_sparse_continuation_has_a_different_loss_and_a_density(run):
    dense, sparse = run("attention=dense"), run("attention=streaming_llm")
    losses = [item.tasks["kjv"].metrics["nats_per_token"] for item in (dense, sparse)]
    assert losses[0] != losses[1]
    assert 0 < sparse.density < 0.5
    assert 0 < sparse.recall < 1


def test_a_dense_continuation_under_a_sparse_method_is_refused(run):
    with pytest.raises(ConfigurationError, match="measure nothing; use protocol=default"):
        run("attention=sparse", "protocol=question_dense")


def test_there_is_no_option_for_a_chat_template():
    with pytest.raises(TypeError, match="chat_template"):
        Perplexity(name="perplexity", chat_template=True)
