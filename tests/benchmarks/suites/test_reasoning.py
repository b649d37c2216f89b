"""Suites of short problems with long answers: prompts, references, and data that cannot be read."""

import re

import pytest
from hydra.utils import instantiate

from sah.benchmarks.suites.aime import Aime
from sah.benchmarks.suites.rows import Source, load_rows
from sah.errors import ConfigurationError, DatasetError

BOXED = "\nPlease reason step by step, and put your final answer within \\boxed{}."


def test_problems_ask_for_the_answer_in_a_box(suite, tiny):
    first, *_ = suite("math500").examples(tiny.prompts, seed=0)
    assert first.context + first.question == "Solve $2x = 0$ for $x$." + BOXED
    assert first.references == (r"\frac{0}{2}",)
    assert first.extras["groups"] == ("subject Algebra", "level 1")
    first, *_ = suite("gsm8k").examples(tiny.prompts, seed=0)
    assert first.context == "Anna has 1000 cats and gets 33 more. How many has she?"
    assert first.question == BOXED
    assert first.references == ("1,033",)


def test_all_years_of_aime_have_the_same_wording(suite, tiny):
    first, *_ = suite("aime26").examples(tiny.prompts, seed=0)
    assert first.context == (
        "Solve the following AIME (American Invitational Mathematics Examination) problem.\n\n"
        "Problem: what is 0 + 33?\n\nInstructions:\n"
        "- The answer should be an integer between 0 and 999\n"
        "- You must wrap your final answer in \\boxed{...} format"
    )
    assert first.question == "What is the answer to this problem?"
    assert first.references == ("33",)
    assert first.max_new_tokens == 32_000


@pytest.mark.parametrize("name", ["math500", "gsm8k", "gpqa", "aime26"])
def test_prompts_are_never_cut(name, suite, tiny):
    assert not any(example.may_cut for example in suite(name).examples(tiny.prompts, seed=0))


def test_the_choices_of_gpqa_are_lettered_as_in_simple_evals(suite, tiny):
    for number, example in enumerate(
        suite("gpqa", subset="diamond").examples(tiny.prompts, seed=0)
    ):
        assert example.id == f"diamond-rec{number}"
        assert example.context == (
            "Answer the following multiple choice question. The last line of your response should "
            "be of the following format: 'Answer: $LETTER' (without quotes) where LETTER is one of "
            f"ABCD. Think step by step before answering.\n\nWhat, then,\nis {number} + 1?\n\n"
        )
        found = re.fullmatch(r"A\) (.*)\nB\) (.*)\nC\) (.*)\nD\) (.*)", example.question)
        (reference,) = example.references
        assert found is not None
        assert found["ABCD".index(reference) + 1] == f"{number + 1}"
        wrong = {f'"{number + 1 + other}"' for other in (1, 2, 3)}
        assert {*found.groups()} == {f"{number + 1}", *wrong}


def test_the_order_of_the_choices_depends_on_seed_and_record_alone(suite, tiny):
    everything = suite("gpqa", subset=None).examples(tiny.prompts, seed=0)
    questions = {}
    for example in everything:
        questions.setdefault(example.context, set()).add((example.question, example.references))
    assert len(questions) == 3
    assert all(len(orders) == 1 for orders in questions.values())
    letters = {
        example.references
        for seed in range(12)
        for example in suite("gpqa", subset="main").examples(tiny.prompts, seed=seed)
    }
    assert letters == {("A",), ("B",), ("C",), ("D",)}


def test_a_gated_data_set_says_how_to_get_access(suite, tiny, monkeypatch):
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    def refuse(*_args, **_kwargs):
        raise DatasetNotFoundError("Dataset 'Idavidrein/gpqa' is a gated dataset on the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        DatasetError,
        match=r"gated dataset on the Hub\.; accept its terms at https://huggingface.co/datasets/"
        r"Idavidrein/gpqa, set HF_TOKEN, and run `sah fetch` .*, or set benchmark\.path",
    ):
        suite("gpqa", path=None).examples(tiny.prompts, seed=0)
    with pytest.raises(DatasetError, match=r"cannot be loaded: .*; run `sah fetch`"):
        suite("gsm8k", path=None).examples(tiny.prompts, seed=0)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("a,b\n1\n", "a row of 2 columns does not fit the header"),
        ("a,b\n1,2,3\n", "does not fit the header"),
        ('a,b\n1,"2\n', "unexpected end of data"),
        (b"a,b\n\xff,1\n", "can't decode byte 0xff"),
    ],
)
def test_a_damaged_csv_file_is_an_error_that_names_it(content, match, tmp_path):
    file = tmp_path / "gpqa_main.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = Source(dataset="Idavidrein/gpqa", config="gpqa_main", split="train")
    with pytest.raises(
        DatasetError, match=rf"gpqa_main\.csv is not a readable CSV file: .*{match}"
    ):
        load_rows(source, path=str(tmp_path), revision="main")


def test_a_solution_without_its_number_is_refused(suite, tmp_path, tiny):
    (tmp_path / "main").mkdir()
    (tmp_path / "main" / "test.jsonl").write_text('{"question": "q", "answer": "no number"}\n')
    with pytest.raises(DatasetError, match=r"gsm8k-0 does not end with '#### ' and a number"):
        suite("gsm8k", path=str(tmp_path)).examples(tiny.prompts, seed=0)


def test_an_unknown_year_of_aime_is_refused():
    with pytest.raises(ConfigurationError, match=r"benchmark\.year=2027: .* 2024, 2025, 2026"):
        Aime(name="aime27", year=2027)


def test_the_commit_in_the_cache_is_read(cache_commit, compose, tiny):
    row = {"problem": "p", "answer": "1", "subject": "Algebra", "level": 1}
    cache_commit("HuggingFaceH4/MATH-500", "default", "a" * 40, [row])
    config = compose("benchmark=math_500")
    assert config.benchmark.content == {"revision": {"HuggingFaceH4/MATH-500": "a" * 40}}
    (example,) = instantiate(config.benchmark).examples(tiny.prompts, seed=0)
    assert example.origin == f"HuggingFaceH4/MATH-500@{'a' * 40}"
