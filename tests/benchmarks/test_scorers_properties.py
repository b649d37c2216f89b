"""Scorers on random texts: bounds, and agreement with independent implementations."""

import re
import unicodedata
from difflib import SequenceMatcher

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sah.benchmarks import scorers
from sah.benchmarks.scorers.text import decompose

WORDS = ("a", "the", "cat", "cats", "sat", "on", "mat", "dog,", "Otto.", "3", "4")
words = st.lists(st.sampled_from(WORDS), max_size=12)
texts = words.map(" ".join)
PARTS_OF_A_LIST = ("Final Answer:", " ", "[", "]", "a", "b", ",", "\n")
few = settings(max_examples=60, deadline=None)


@given(order=st.permutations(range(1, 7)))
@few
def test_the_concordance_index_agrees_with_kendalls_tau(order):
    """For permutations without ties, tau is 2 c - 1."""
    from scipy import stats

    places = [order.index(item) for item in range(1, 7)]
    expected = (stats.kendalltau(range(6), places).statistic + 1) / 2
    given = ", ".join(map(str, order))
    assert scorers.concordance_index(given, ["1, 2, 3, 4, 5, 6"]) == pytest.approx(expected)


@given(prediction=texts, reference=texts)
@few
def test_token_f1_agrees_with_rouge_1_of_normalised_words(prediction, reference):
    """rouge-score calls the F1 of bags of words ROUGE-1."""
    from rouge_score.rouge_scorer import RougeScorer

    from sah.benchmarks.scorers.text import normalise

    expected = RougeScorer(["rouge1"]).score(normalise(reference), normalise(prediction))["rouge1"]
    assert scorers.token_f1(prediction, [reference]) == pytest.approx(expected.fmeasure)


@given(prediction=st.text("abc ", min_size=1, max_size=12), reference=st.text("abc ", min_size=1))
@few
def test_edit_similarity_agrees_with_a_plain_indel_ratio(prediction, reference):
    """The ratio is 2 × longest common subsequence / both lengths, by the textbook recurrence."""
    common = longest_common(prediction, reference)
    expected = round(100 * 2 * common / (len(prediction) + len(reference))) / 100
    assert scorers.code_similarity(prediction, [reference]) == pytest.approx(expected, abs=0.0101)


@given(prediction=st.text("abc ", max_size=40), reference=st.text("abc ", min_size=10))
@few
def test_similarity_agrees_with_difflib(prediction, reference):
    one, other = prediction.strip(), reference.strip()
    if len(one) <= 4 * len(other):
        expected = SequenceMatcher(None, one, other).ratio()
        assert scorers.prefixed_similarity(prediction, [reference]) == pytest.approx(expected)


@given(text=st.lists(st.sampled_from(PARTS_OF_A_LIST), max_size=9).map("".join))
@few
def test_a_set_of_nodes_is_read_as_in_the_published_port(text):
    """The last line is searched for the list, as in NeMo Gym."""
    lines = [line for line in text.strip().split("\n") if line.strip()]
    found = re.search(r"Final Answer:\s*\[(.*)\]", lines[-1]) if lines else None
    given = {item.strip() for item in found[1].split(",") if item.strip()} if found else set()
    right = {"a", "b"}
    expected = 2 * len(given & right) / (len(given) + len(right))
    assert scorers.node_set_f1(text, ["Final Answer: [a, b]"]) == pytest.approx(expected)


@given(prediction=words, reference=words)
@few
def test_rouge_l_of_one_sentence_agrees_with_the_textbook(prediction, reference):
    """Words are distinct, for which both packages agree with the textbook."""
    one, other = (
        list(dict.fromkeys(word.strip(",.").lower() for word in side))
        for side in (prediction, reference)
    )
    common = longest_common(one, other)
    f1 = 2 * common / (len(one) + len(other)) if common else 0.0
    for scorer in (scorers.rouge_l, scorers.rouge_l_sum):
        assert scorer(" ".join(one), [" ".join(other)]) == pytest.approx(f1, abs=1e-6)


@given(prediction=words, reference=words)
@few
def test_bleu_1_agrees_with_sacrebleu(prediction, reference):
    sacrebleu = pytest.importorskip("sacrebleu")
    if not prediction or not reference:
        return
    metric = sacrebleu.BLEU(
        max_ngram_order=1, effective_order=True, tokenize="none", smooth_method="none"
    )
    expected = metric.sentence_score(" ".join(prediction), [" ".join(reference)]).score / 100
    assert scorers.bleu_1(" ".join(prediction), [" ".join(reference)]) == pytest.approx(
        expected, abs=1e-6
    )


@given(
    prediction=st.lists(st.sampled_from((*WORDS, ".", "..", "mat.")), max_size=12).map(" ".join),
    reference=texts,
)
@few
def test_rouge_agrees_with_the_package_of_the_official_scripts(prediction, reference):
    from rouge import Rouge

    if not prediction.strip(". ") or not reference.strip():
        return
    (expected,) = Rouge().get_scores([prediction], [reference])
    for scorer, kind, number in (
        (scorers.rouge_l, "rouge-l", "f"),
        (scorers.rouge_l_recall, "rouge-l", "r"),
        (scorers.rouge_1_recall, "rouge-1", "r"),
        (scorers.rouge_2_recall, "rouge-2", "r"),
    ):
        assert scorer(prediction, [reference]) == pytest.approx(expected[kind][number], abs=1e-12)


@given(
    parts=st.lists(st.sampled_from("éa\u0301\u0327\u0323가\u1100ΐﬁ "), max_size=30).map("".join),
)
@few
def test_decomposition_is_that_of_unicode(parts):
    assert decompose(parts) == unicodedata.normalize("NFD", parts)


def longest_common(one, other):
    row = [0] * (len(other) + 1)
    for left in one:
        above = row[:]
        for column, right in enumerate(other, start=1):
            row[column] = (
                above[column - 1] + 1 if left == right else max(above[column], row[column - 1])
            )
    return row[-1]
