import pytest

from sah.benchmarks.ruler import Ruler
from sah.calibration.passages import default_passages, passages_of_file
from sah.errors import ConfigurationError


@pytest.fixture(scope="module")
def some(tiny):
    return default_passages(tiny.prompts, tokens=4000, passage_tokens=1024, seed=0)


def test_needle_prompts_and_prose_alternate(tiny, some):
    asks, plain = some[0], some[1]
    question = tiny.prompts.decode(asks.token_ids[asks.question_start :])
    assert "What is the special magic number" in question
    assert plain.question_start == len(plain.token_ids) == 1024
    assert all(len(passage.token_ids) <= 1024 for passage in some)
    assert 4000 <= sum(len(passage.token_ids) for passage in some) < 4000 + 2 * 1024


def test_the_answer_follows_the_question(tiny, some):
    text = tiny.prompts.decode(some[0].token_ids)
    answer = text.rpartition(" is")[2].strip(" .")
    assert answer.isdigit()
    assert f"is: {answer}." in text.partition("What is")[0]


def test_passages_depend_on_the_seed(tiny, some):
    again = default_passages(tiny.prompts, tokens=4000, passage_tokens=1024, seed=0)
    other = default_passages(tiny.prompts, tokens=4000, passage_tokens=1024, seed=1)
    assert again == some
    assert [a.token_ids for a in other] != [a.token_ids for a in some]


def test_prompts_are_not_those_of_the_benchmark(tiny, some):
    """Not even with the same seed."""
    benchmark = Ruler(subset="niah_single_1", context_tokens=1024, samples=10)
    of_benchmark = [tiny.prompts.encode(example) for example in benchmark.examples(tiny.prompts, 0)]
    context = some[0].token_ids[: some[0].question_start]
    assert context not in [prompt.context_ids for prompt in of_benchmark]


def test_a_file_is_cut_into_passages(tiny, tmp_path):
    file = tmp_path / "text.txt"
    file.write_text("The grass is green. " * 200)
    passages = passages_of_file(tiny.prompts, file, tokens=250, passage_tokens=100)
    assert [len(passage.token_ids) for passage in passages] == [100, 100]
    together = passages[0].token_ids + passages[1].token_ids
    assert file.read_text().startswith(tiny.prompts.decode(together))


@pytest.mark.parametrize(("content", "message"), [(b"short", "passage of 100"), (b"\xff", "UTF-8")])
def test_an_unusable_file_is_named(tiny, tmp_path, content, message):
    file = tmp_path / "text.txt"
    file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message):
        passages_of_file(tiny.prompts, file, tokens=250, passage_tokens=100)
