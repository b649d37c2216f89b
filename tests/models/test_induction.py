"""The constructed model retrieves exactly, at any distance, if attention reads the needle."""

import random
from collections.abc import Callable, Sequence

import pytest
import torch
from omegaconf import DictConfig

from sah.benchmarks.drawing import random_text
from sah.benchmarks.ruler import Ruler
from sah.errors import ModelLoadingError
from sah.execution.attempts import compute_arms
from sah.models.cache import RewindableCache
from sah.models.induction import InductionModel
from sah.models.language_model import LanguageModel
from sah.types import Example

EXACT = ["niah_single_1", "niah_single_2", "niah_single_3"] + [
    f"niah_multikey_{number}" for number in (1, 2, 3)
]


@pytest.fixture(scope="module")
def induction() -> LanguageModel:
    return InductionModel(dtype="float32").load()


def complete(model: LanguageModel, ids: Sequence[int], positions: Sequence[int]) -> str:
    """Continue a prompt greedily."""
    cache = RewindableCache(model.model.config, len(ids) + 64)
    found: list[int] = []
    last = positions[-1]
    with torch.inference_mode():
        while len(found) < 60:
            logits = model.model(
                input_ids=torch.tensor([list(ids)]),
                position_ids=torch.tensor([list(positions)]),
                past_key_values=cache,
                logits_to_keep=1,
            ).logits
            cache.length += len(ids)
            token = int(logits[0, -1].argmax())
            if token in model.eos_token_ids:
                return model.prompts.decode(found)
            found.append(token)
            last += 1
            ids, positions = [token], [last]
    raise AssertionError(f"the answer does not end: {model.prompts.decode(found)}")


def answer(model: LanguageModel, example: Example) -> str:
    prompt = model.prompts.encode(example)
    ids = prompt.context_ids + prompt.question_ids
    return complete(model, ids, range(len(ids)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_needle_tasks_are_answered_exactly(dtype: str) -> None:
    model = InductionModel(dtype=dtype).load()
    benchmark = Ruler(subset=EXACT, context_tokens=1024, samples=2)
    for example in benchmark.examples(model.prompts, seed=0):
        assert answer(model, example) == example.references[0], example.id


def test_of_several_keys_the_last_is_answered(induction: LanguageModel) -> None:
    benchmark = Ruler(subset="niah_multiquery", context_tokens=1024, samples=2)
    for example in benchmark.examples(induction.prompts, seed=0):
        assert answer(induction, example) == example.references[-1]


def test_key_value_retrieval_is_answered_exactly(
    induction: LanguageModel, make_example: Callable[..., Example]
) -> None:
    draw = random.Random(0)
    records = {random_text("uuids", draw): random_text("uuids", draw) for _ in range(40)}
    rows = ",\n ".join(f'"{key}": "{value}"' for key, value in records.items())
    for key in list(records)[::13]:
        example = make_example(
            f"{{{rows}}}\n\n", f'Key: "{key}"', answer_prefix="\nCorresponding value:"
        )
        assert answer(induction, example) == records[key]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_distance_to_the_needle_does_not_matter(
    dtype: str, make_example: Callable[..., Example]
) -> None:
    model = InductionModel(dtype=dtype).load()
    example = make_example(
        "One of the special magic numbers for odd-cat is: 1234567. "
        "One of the special magic numbers for odd-rat is: 7654321. ",
        " The special magic number for odd-cat mentioned in the provided text is",
    )
    prompt = model.prompts.encode(example)
    last = model.prompts.max_tokens - 10
    positions = [
        *range(len(prompt.context_ids)),
        *range(last - len(prompt.question_ids), last),
    ]
    assert complete(model, prompt.context_ids + prompt.question_ids, positions) == "1234567"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [100, 131_072])
def test_layer_0_tells_every_offset_apart(
    tokens: int, dtype: torch.dtype, induction: LanguageModel
) -> None:
    attention = induction.model.model.layers[0].self_attn
    one = torch.zeros(96)
    one[15] = 1.0
    cosine, sine = induction.model.model.rotary_emb(one.to(dtype), torch.arange(tokens)[None])

    def rotated(vector: torch.Tensor) -> torch.Tensor:
        turned = torch.cat([-vector[..., 36:], vector[..., :36]], dim=-1)
        return vector * cosine[0, :, :] + turned * sine[0, :, :]

    key = rotated((attention.k_proj.weight[:72] @ one).to(dtype).expand(tokens, -1))
    for head, query in enumerate((attention.q_proj.weight @ one).to(dtype).view(4, 72)):
        logits = key.float() @ rotated(query.expand(tokens, -1))[-1].float() / 72**0.5
        assert logits.softmax(-1)[tokens - 2 - head] > 0.9999


def test_no_text_is_lost_in_tokens(induction: LanguageModel) -> None:
    texts = (
        "The key is: 12, 1e-9f.\r\n\t“é漢🙂” \x00 <end>  brother-in-law mentioned in the provided "
        "text is\u2028odd-ca7 antidisestablishmentarianism-12ab",
        "x" * 1000 + "\n" * 5,
    )
    for text in texts:
        ids = induction.prompts.tokenizer(text).input_ids
        assert induction.prompts.tokenizer.decode(ids) == text


def test_score_depends_on_whether_the_needle_is_read(
    configure: Callable[..., DictConfig],
) -> None:
    arms = {"dense": [], "oracle_top_k": ["sparse_attention.maskers.oracle_top_k.fraction=0.01"]}
    arms |= {"streaming_llm": [], "random_sampling": []}
    common = ["model=induction", "benchmark=ruler", "benchmark.subset=niah_multikey_2"]
    common += ["benchmark.context_tokens=8192", "benchmark.samples=2"]
    lists = [[*common, f"sparse_attention={name}", *more] for name, more in arms.items()]
    ended = compute_arms([(configure(*overrides), overrides) for overrides in lists])
    scores = {}
    for name, outcome in zip(arms, ended, strict=True):
        assert outcome.result is not None, outcome.error
        scores[name] = outcome.result.score
    assert scores == {
        "dense": 1.0,
        "oracle_top_k": 1.0,
        "streaming_llm": 0.0,
        "random_sampling": 0.0,
    }


def test_a_needle_is_found_at_32k(induction: LanguageModel) -> None:
    benchmark = Ruler(subset="niah_multikey_3", context_tokens=32_768, samples=1)
    (example,) = benchmark.examples(induction.prompts, seed=0)
    assert len(induction.prompts.encode(example).context_ids) > 32_000
    assert answer(induction, example) == example.references[0]


def test_longer_sequences_than_positions_allow_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be in \[1, 131072\].* got 131073"):
        InductionModel(max_tokens=131_073)


def test_words_of_another_version_are_refused() -> None:
    with pytest.raises(ModelLoadingError, match=r"wonderwords.*0\.1.*run it again"):
        InductionModel(content={"packages": {"wonderwords": "0.1"}}).prompts()
