"""protocol=forced: every arm follows the dense answer and is compared with it token by token."""

import orjson
import pytest
import torch
from hydra.utils import instantiate

from sah.attention import (
    AttentionInputs,
    AttentionMask,
    DenseAttention,
    SparseAttention,
    Visibility,
)
from sah.attention.session import AttentionSession
from sah.attention.stacked.stacked_layer import StackedLayer
from sah.execution.attempts import compute_arms
from sah.execution.teacher_forcing import DenseAnswer, LayerErrors, TeacherForcing, kl_divergence
from sah.launching.objective import objective
from sah.models.generation import Generation
from sah.results import directory

CONTEXT = [1 + (7 * n) % 390 for n in range(200)]
QUESTION = [5 + (11 * n) % 380 for n in range(9)]


@pytest.fixture
def arms(compose, tmp_path):
    """Compute attentions in one job of the mock benchmark; returns results and predictions."""

    def run(attentions, *overrides):
        base = ("model=tiny", "benchmark=mock", f"output_root={tmp_path}")
        configs = [compose(*base, f"attention={name}", *overrides) for name in attentions]
        outcomes = compute_arms([(config, []) for config in configs])
        lines = [
            (directory(config) / "predictions.jsonl").read_bytes().splitlines()
            for config in configs
        ]
        return [outcome.result for outcome in outcomes], [
            [orjson.loads(line) for line in written] for written in lines
        ]

    return run


@pytest.mark.parametrize("sampling", ["generation.temperature=0", "generation.temperature=0.8"])
def test_every_arm_has_the_free_answer_of_dense_attention(arms, sampling):
    _, (free,) = arms(["dense"], sampling)
    _, following = arms(["dense", "sparse", "streaming_llm"], sampling, "protocol=forced")
    for predictions in following:
        assert [item["text"] for item in predictions] == [item["text"] for item in free]
        assert [item["new_tokens"] for item in predictions] == [
            len(item["dense_agreement"]["kl"]) for item in predictions
        ]


def test_the_dense_arm_has_no_divergence_from_itself(arms):
    (result,), _ = arms(["dense"], "protocol=forced")
    agreement = result.dense_agreement
    assert (agreement.kl, agreement.top_agreement) == (0.0, 1.0)
    assert agreement.output_error_by_layer == {}


def test_a_full_budget_has_no_divergence_from_dense(arms):
    full = ("sparse_attention.maskers.oracle_top_k.fraction=1.0",)
    (result,), _ = arms(["oracle_top_k"], *full, "protocol=forced")
    assert result.dense_agreement.kl < 1e-6
    assert result.dense_agreement.top_agreement == 1.0
    assert max(result.dense_agreement.output_error_by_layer.values()) < 1e-5


def test_results_average_over_examples(arms):
    (result,), (predictions,) = arms(["streaming_llm"], "protocol=forced")
    by_example = [torch.tensor(item["dense_agreement"]["kl"]).mean().item() for item in predictions]
    agreement = result.dense_agreement
    assert agreement.kl == pytest.approx(sum(by_example) / 5)
    # Questions about one context are one observation: two contexts, three and two questions.
    deviations = [value - agreement.kl for value in by_example]
    stderr = (2 * (sum(deviations[:3]) ** 2 + sum(deviations[3:]) ** 2)) ** 0.5 / 5
    assert agreement.kl_stderr == pytest.approx(stderr, rel=1e-4)
    assert agreement.tokens == sum(item["new_tokens"] for item in predictions)
    assert set(agreement.output_error_by_layer) == {"0", "1", "2"}
    assert agreement.kl > 0.01
    assert objective("1 - dense_agreement_kl", result) == pytest.approx(1 - agreement.kl)


def test_a_free_answer_has_no_dense_agreement(arms):
    (result,), (predictions,) = arms(["sparse"])
    assert result.dense_agreement is None
    assert {item["dense_agreement"] for item in predictions} == {None}


def test_layer_errors_equal_those_of_the_micro_metrics(arms, tmp_path):
    # With a dense question only the decode steps are sparse.
    options = ("metric_logging=full", "protocol=forced", "protocol.question=dense")
    _, (predictions,) = arms(["streaming_llm"], *options)
    (path,) = tmp_path.rglob("micro_metrics.jsonl")
    records = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    for prediction in predictions:
        for layer in (0, 1):
            logged = [
                record["value"]
                for record in records
                if record["metric"] == "research_attention_output_error"
                and record["metadata"]["example_id"] == prediction["example_id"]
                and record["metadata"]["layer_idx"] == layer
            ]
            assert len(logged) == prediction["new_tokens"] - 1
            measured = prediction["dense_agreement"]["output_error"][str(layer)]
            assert measured == pytest.approx(sum(logged) / len(logged), rel=1e-5)


def test_divergence_equals_that_of_the_logits_of_the_model(tiny, compose):
    """Compare with distributions computed without our decoding code."""
    attention = instantiate(compose("attention=streaming_llm").sparse_attention, _convert_="all")
    reference = DenseAnswer(Generation().sampler(0, "x", tiny.device))
    forced = TeacherForcing(reference)
    context = tiny.prefill(CONTEXT, reserve_tokens=30)
    for chooser, one in ((reference, DenseAttention()), (forced, attention)):
        session = AttentionSession(one, seed=0)
        session.begin_context(context.length)
        session.begin_example("x")
        tiny.answer(context, QUESTION, session=session, sampler=chooser, max_new_tokens=6)

    tokens = reference.tokens
    assert len(tokens) == 6
    ids = torch.tensor([CONTEXT + QUESTION + tokens[:-1]])
    with torch.inference_mode():
        dense = tiny.model(ids).logits[0, len(CONTEXT) + len(QUESTION) - 1 :]
    assert dense.argmax(-1).tolist() == tokens
    session = AttentionSession(attention, seed=0)
    session.begin_context(len(CONTEXT))
    session.begin_example("x")
    with torch.inference_mode():
        cache = tiny.prefill(CONTEXT, reserve_tokens=30).cache
        with session.attached(tiny.model):
            sparse = tiny.model(ids[:, len(CONTEXT) :], past_key_values=cache).logits[0]
    sparse = sparse[len(QUESTION) - 1 :]
    expected = torch.nn.functional.kl_div(
        sparse.log_softmax(-1), dense.log_softmax(-1), log_target=True, reduction="none"
    ).sum(-1)
    assert forced.measured()["kl"] == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-5)
    agrees = (sparse.argmax(-1) == dense.argmax(-1)).tolist()
    assert forced.measured()["top_agrees"] == agrees
    assert expected.max() > 0.1


def test_divergence_of_known_distributions():
    half = torch.tensor([[0.5, 0.5]]).log()
    quarter = torch.tensor([[0.25, 0.75]]).log()
    expected = 0.5 * torch.tensor(0.5 / 0.25).log() + 0.5 * torch.tensor(0.5 / 0.75).log()
    assert kl_divergence(half, quarter).item() == pytest.approx(expected.item())
    assert kl_divergence(half, half + 3).item() == 0.0


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_only_the_last_query_of_a_pass_counts_in_any_chunking(chunk):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    inputs = AttentionInputs(
        query=draw(1, 2, 5, 4),
        key=draw(1, 1, 9, 4),
        value=draw(1, 1, 9, 4),
        visibility=Visibility(torch.arange(9) <= torch.arange(4, 9)[:, None].expand(1, 1, 5, 1)),
        scaling=0.5,
        first_position=4,
    )
    output = draw(1, 2, 5, 4)
    errors = LayerErrors()
    errors.begin_example()
    for part in inputs.chunks(chunk):
        start = part.first_position - 4
        errors(part, AttentionMask.empty(part), output[:, :, start : start + part.query.shape[2]])
    scores = inputs.query[0, :, -1] @ inputs.key[0, 0].T * 0.5
    dense = scores.softmax(-1) @ inputs.value[0, 0]
    expected = ((output[0, :, -1] - dense).norm(dim=-1) / dense.norm(dim=-1)).mean()
    assert errors.measured() == {"output_error": {"0": pytest.approx(expected.item(), rel=1e-5)}}


def test_dense_layers_have_no_error(tiny, compose):
    sparse = instantiate(compose("attention=sparse").sparse_attention, _convert_="all")
    attention = SparseAttention(name="upper", maskers=sparse.maskers, dense_layers=(0,))
    errors = LayerErrors()
    context = tiny.prefill(CONTEXT, reserve_tokens=30)
    session = AttentionSession(attention, seed=0, observers=(errors,))
    session.begin_context(context.length)
    session.begin_example("x")
    sampler = Generation().sampler(0, "x", tiny.device)
    tiny.answer(context, QUESTION, session=session, sampler=sampler, max_new_tokens=3)
    assert set(errors.measured()["output_error"]) == {"1"}


@pytest.mark.parametrize(("batch_tokens", "is_copied"), [(290, False), (1000, True)])
def test_the_dense_answers_of_long_contexts_are_decoded_without_a_copy_of_them(
    arms, monkeypatch, batch_tokens, is_copied
):
    made = []
    init = StackedLayer.__init__
    monkeypatch.setattr(
        StackedLayer, "__init__", lambda *args, **named: made.append(init(*args, **named))
    )
    arms(["dense"], "protocol=forced", f"generation.batch_tokens={batch_tokens}")
    assert bool(made) == is_copied
