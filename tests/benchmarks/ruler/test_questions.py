import json
import re

import pytest

from sah.benchmarks.ruler import Ruler
from sah.errors import ConfigurationError, DatasetError

INSTRUCTION = (
    "Answer the question based on the given documents. Only give me the answer and do not output "
    "any other words."
)


@pytest.fixture
def squad_file(tmp_path):
    """A file of made-up articles in SQuAD's layout, each answer in its question's paragraph."""

    def paragraph(article, number):
        name = f"A{article}-{number}"
        question = {
            "question": f"Who is {name}?",
            "id": name,
            "answers": [{"text": f"mayor {name}", "answer_start": 0}] * 2,
            "is_impossible": False,
        }
        impossible = {**question, "question": "No answer?", "answers": [], "is_impossible": True}
        text = f"The person {name} was mayor {name} of a town by the sea for many years."
        return {"context": text, "qas": [question, impossible]}

    data = [
        {"title": f"A{article}", "paragraphs": [paragraph(article, n) for n in range(3)]}
        for article in range(30)
    ]
    path = tmp_path / "dev-v2.0.json"
    path.write_text(json.dumps({"version": "v2.0", "data": data}))
    return path


@pytest.fixture
def hotpotqa_file(tmp_path):
    items = [
        {
            "_id": f"{n}",
            "question": f"Which river joins {n}?",
            "answer": f"river {n}",
            "supporting_facts": [[f"T{n}-0", 0]],
            "context": [[f"T{n}-{k}", [f"Town {n}-{k}.", f" By river {n}."]] for k in range(10)],
        }
        for n in range(20)
    ]
    path = tmp_path / "hotpot_dev_distractor_v1.json"
    path.write_text(json.dumps(items))
    return path


def documents(example):
    """Return the numbered documents of a context, which the instruction precedes and follows."""
    head = f"{INSTRUCTION}\n\nThe following are given documents.\n\n"
    assert example.context.startswith(head)
    assert example.context.endswith(f"\n\n{INSTRUCTION}\n\n")
    body = example.context.removeprefix(head).removesuffix(f"\n\n{INSTRUCTION}\n\n")
    found = re.split(r"(?:^|\n\n)Document (\d+):\n", body)[1:]
    assert [int(number) for number in found[::2]] == list(range(1, len(found) // 2 + 1))
    return found[1::2]


def check(examples, prompt_tokens, context_tokens):
    for example in examples:
        assert prompt_tokens(example) + 32 <= context_tokens
        assert example.max_new_tokens == 32
        assert example.answer_prefix == " Answer:"
        assert any(reference in example.context for reference in example.references)
        texts = documents(example)
        assert len(set(texts)) == len(texts) > 1


def test_squad_contexts_have_the_paragraph_and_the_rest_of_its_article(
    squad_file, tiny, prompt_tokens
):
    benchmark = Ruler(subset="qa_1", context_tokens=700, samples=8, squad=str(squad_file))
    examples = benchmark.examples(tiny.prompts, seed=0)
    check(examples, prompt_tokens, 700)
    for example in examples:
        (name,) = re.findall(r"Question: Who is (\S+)\?", example.question)
        assert example.references == (f"mayor {name}",)
        article = name.split("-")[0]
        own = [text for text in documents(example) if f"The person {article}-" in text]
        # The rest of the article is added before any other article.
        assert len(own) == 3
        assert len(documents(example)) > 3
    assert len({example.question for example in examples}) == 8


def test_hotpotqa_contexts_have_all_paragraphs_of_the_question(hotpotqa_file, tiny, prompt_tokens):
    benchmark = Ruler(subset="qa_2", context_tokens=900, samples=3, hotpotqa=str(hotpotqa_file))
    examples = benchmark.examples(tiny.prompts, seed=0)
    check(examples, prompt_tokens, 900)
    for example in examples:
        (number,) = re.findall(r"joins (\d+)\?", example.question)
        expected = {f"T{number}-{k}\nTown {number}-{k}. By river {number}." for k in range(10)}
        assert expected <= set(documents(example))


def test_depth_and_length_of_the_supporting_document_are_noted(squad_file, tiny):
    benchmark = Ruler(subset="qa_1", context_tokens=700, samples=8, squad=str(squad_file))
    examples = benchmark.examples(tiny.prompts, seed=0)
    depths = set()
    for example in examples:
        (needle,) = example.metadata["needles"]
        (text,) = (text for text in documents(example) if needle["answer"] in text)
        depth = example.context.index(text) / len(example.context)
        assert needle["answer"] == example.references[0]
        assert needle["depth"] == pytest.approx(depth, abs=1e-6)
        assert needle["tokens"] == len(tiny.prompts.tokenizer(text).input_ids)
        depths.add(needle["depth"])
    assert len(depths) > 3


def test_one_of_the_documents_has_the_answer_to_a_factbook_question(tiny, prompt_tokens):
    benchmark = Ruler(subset="qa_factbook", context_tokens=1500, samples=5)
    check(benchmark.examples(tiny.prompts, seed=0), prompt_tokens, 1500)


def test_a_published_task_without_its_file_is_an_error_that_names_the_option():
    with pytest.raises(ConfigurationError, match=r"subset=qa_1: set benchmark\.squad"):
        Ruler(subset="qa_1")
    with pytest.raises(ConfigurationError, match=r"subset=qa_2: set benchmark\.hotpotqa"):
        Ruler(subset=["vt", "qa_2"])


def test_with_both_files_all_tasks_are_the_published_ones():
    published = {"qa_1", "qa_2"}
    assert not published & set(Ruler().available_subsets())
    assert "qa_factbook" in Ruler().available_subsets()
    given = Ruler(squad="a.json", hotpotqa="b.json").available_subsets()
    assert len(given) == 13
    assert published < set(given)
    assert "qa_factbook" not in given


@pytest.mark.parametrize(
    ("content", "match"),
    [("{", "cannot be read"), ("[]", "no questions"), ('[{"a": 1}]', "fields of the published")],
)
def test_a_file_that_is_not_the_published_one_is_an_error(tmp_path, tiny, content, match):
    path = tmp_path / "file.json"
    path.write_text(content)
    for option, task in (("squad", "qa_1"), ("hotpotqa", "qa_2")):
        benchmark = Ruler(subset=task, **{option: str(path)})
        with pytest.raises(DatasetError, match=match):
            benchmark.examples(tiny.prompts, seed=0)
    with pytest.raises(DatasetError, match="No such file"):
        Ruler(subset="qa_1", squad=str(tmp_path / "none")).examples(tiny.prompts, seed=0)


def test_more_samples_than_questions_is_an_error(squad_file, tiny):
    benchmark = Ruler(subset="qa_1", context_tokens=700, samples=91, squad=str(squad_file))
    with pytest.raises(ConfigurationError, match="only 90 questions"):
        benchmark.examples(tiny.prompts, seed=0)
