"""Every scorer against cases computed by hand and against independent implementations."""

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sah.benchmarks import scorers

WORDS = ("a", "the", "cat", "cats", "sat", "on", "mat", "dog,", "Otto.", "3", "4")
words = st.lists(st.sampled_from(WORDS), max_size=12)
texts = words.map(" ".join)
few = settings(max_examples=60, deadline=None)

CATS = {"options": ["a hat", "a grey cat", "c", "d"]}
FUNCTIONS = {"options": ["f", "run_all", "g", "h"]}

CASES = [
    # Exact match and containment.
    ("exact_match", "Otto", ["Otto"], {}, 1.0),
    ("exact_match", "otto", ["OTTO"], {}, 1.0),
    ("exact_match", "  Otto\n", ["Otto"], {}, 1.0),
    ("exact_match", "Otto", [" Otto "], {}, 1.0),
    ("exact_match", "Otto the cat", ["Otto"], {}, 0.0),
    ("exact_match", "Ott", ["Otto"], {}, 0.0),
    ("exact_match", "Otto.", ["Otto"], {}, 0.0),
    ("exact_match", "", ["Otto"], {}, 0.0),
    ("exact_match", " \n", ["Otto"], {}, 0.0),
    ("exact_match", "b", ["a", "b"], {}, 1.0),
    ("exact_match", "c", ["a", "b"], {}, 0.0),
    ("exact_match", "STRASSE", ["Straße"], {}, 1.0),
    ("exact_match", "ÉCOLE", ["école"], {}, 1.0),
    ("exact_match", "ecole", ["école"], {}, 0.0),
    ("exact_match", "漢字", ["漢字"], {}, 1.0),
    ("contained_share", "It is 42.", ["42"], {}, 1.0),
    ("contained_share", "It is 42.", ["42", "43"], {}, 0.5),
    ("contained_share", "43 42", ["42", "43"], {}, 1.0),
    ("contained_share", "one", ["one", "two", "three", "four"], {}, 0.25),
    ("contained_share", "GENTLE-River", ["gentle-river"], {}, 1.0),
    ("contained_share", "gentle river", ["gentle-river"], {}, 0.0),
    ("contained_share", "", ["42", "43"], {}, 0.0),
    ("contained_share", "ÜBER", ["über"], {}, 1.0),
    ("contained_share", "4 2", ["42"], {}, 0.0),
    # F1: normalised words, best reference.
    ("token_f1", "the cat, Otto!", ["Otto cat"], {}, 1.0),
    ("token_f1", "Otto the grey cat", ["Otto"], {}, 2 * (1 / 3) * 1 / (1 / 3 + 1)),
    ("token_f1", "b c", ["x", "b c d", "b"], {}, 0.8),
    ("token_f1", "", ["Otto"], {}, 0.0),
    ("token_f1", "Otto", [""], {}, 0.0),
    ("token_f1", "1,000 cats", ["1000 cats"], {}, 1.0),
    ("token_f1_chinese", "一只猫。", ["一只猫"], {}, 1.0),
    # Four words, one of which is the university.
    ("token_f1_chinese", "我来到北京清华大学", ["清华大学"], {}, 0.4),
    ("token_f1_chinese", "", ["猫"], {}, 0.0),
    ("character_f1_chinese", "一只灰猫", ["一只猫"], {}, 6 / 7),
    ("character_f1_chinese", "狗", ["猫", "狗！"], {}, 1.0),
    ("normalised_exact_match", "The Cat.", ["cat"], {}, 1.0),
    ("normalised_exact_match", "cats", ["cat"], {}, 0.0),
    ("contained_any", "it is B or c", ["a1", "b"], {}, 1.0),
    ("contained_any", "", ["b"], {}, 0.0),
    # Classification: classes named, except those contained in the right class's name.
    ("classification", "It is Animal", ["Animal"], {"all_classes": ["Plant", "Animal"]}, 1.0),
    ("classification", "Plant, Animal", ["Animal"], {"all_classes": ["Plant", "Animal"]}, 0.5),
    ("classification", "Plant", ["Animal"], {"all_classes": ["Plant", "Animal"]}, 0.0),
    ("classification", "", ["Animal"], {"all_classes": ["Plant", "Animal"]}, 0.0),
    (
        *("classification", "Wild Animal", ["Wild Animal"]),
        *({"all_classes": ["Animal", "Wild Animal"]}, 1.0),
    ),
    (
        *("classification", "zoo: Wild Animal", ["Wild Animal"]),
        *({"all_classes": ["zoo", "Animal", "Wild Animal"]}, 0.5),
    ),
    # As published, the class after an ignored one is not checked.
    ("classification", "abc", ["abc"], {"all_classes": ["a", "b", "abc"]}, 0.5),
    ("count", "There are 5, or 5 and not 6", ["5"], {}, 2 / 3),
    ("count", "five", ["5"], {}, 0.0),
    ("count", "1,005", ["5"], {}, 0.0),
    ("paragraph_retrieval", "Paragraph 12", ["Paragraph 12"], {}, 1.0),
    ("paragraph_retrieval", "Paragraphs 1 to 12", ["Paragraph 12"], {}, 0.5),
    ("paragraph_retrieval", "段落7", ["段落7"], {}, 1.0),
    ("paragraph_retrieval", "none", ["段落7"], {}, 0.0),
    ("code_similarity", "\n```python\n# doc\nreturn x\ny", ["return x"], {}, 1.0),
    ("code_similarity", "// doc\nreturn x", ["return x"], {}, 1.0),
    ("code_similarity", "abcd", ["abce"], {}, 0.75),
    ("code_similarity", "Xab", ["Xab"], {}, 1.0),
    ("code_similarity", "", ["return x"], {}, 0.0),
    ("code_similarity", "```", ["return x"], {}, 0.0),
    # Choices.
    ("stated_choice", "The correct answer is **(B)**.", ["B"], {}, 1.0),
    ("stated_choice", "The correct answer is B", ["B"], {}, 1.0),
    ("stated_choice", "B", ["B"], {}, 0.0),
    ("stated_choice", "The correct answer is (A), not (B)", ["B"], {}, 0.0),
    ("stated_choice", "(A) (B) (C) (D)", ["B"], {}, 0.0),
    ("stated_choice", "", ["B"], {}, 0.0),
    ("last_choice", "B", ["B"], {}, 1.0),
    ("last_choice", "The answer is: B.", ["B"], {}, 1.0),
    ("last_choice", "A, B, C, D", ["B"], {}, 0.0),
    ("last_choice", "", ["B"], {}, 0.0),
    ("last_choice", "a grey cat", ["B"], CATS, 1.0),
    ("last_choice", "answer is a grey cat", ["B"], CATS, 1.0),
    ("bug_choice", "The correct option is: C", ["C"], {}, 1.0),
    ("bug_choice", "run_all fails", ["B"], FUNCTIONS, 1.0),
    # As published, a quote before the name becomes a leading space.
    ("bug_choice", "`run_all` fails", ["B"], FUNCTIONS, 0.0),
    ("bug_choice", "answer: g", ["B"], FUNCTIONS, 0.0),
    ("bug_choice", "", ["B"], FUNCTIONS, 0.0),
    ("last_choice", "B? No, C", ["C"], {}, 1.0),
    ("last_choice", "I say C because\nB is wrong", ["C"], {}, 1.0),
    ("last_choice", "B, not A", ["B"], {}, 1.0),
    ("last_choice", "It is X or B and not C", ["B"], {}, 1.0),
    (
        "last_choice",
        "the answer is: a grey cat",
        ["B"],
        CATS,
        1.0,
    ),
    (
        "last_choice",
        "my answer: a grey cat",
        ["B"],
        CATS,
        1.0,
    ),
    (
        "last_choice",
        "the option is a grey cat",
        ["B"],
        CATS,
        1.0,
    ),
    (
        "last_choice",
        "answer is 'a grey cat'",
        ["B"],
        CATS,
        1.0,
    ),
    (
        "last_choice",
        "the answer is a grey cat, since the answer is a hat",
        ["B"],
        CATS,
        1.0,
    ),
    ("bug_choice", "it is not A", ["C"], {}, 0.0),
    ("bug_choice", "I think it is C", ["C"], {}, 1.0),
    ("bug_choice", "It is: run_all", ["B"], FUNCTIONS, 1.0),
    ("bug_choice", "answer: run_all", ["B"], FUNCTIONS, 1.0),
    (
        "bug_choice",
        "answer is: Option run_all",
        ["B"],
        FUNCTIONS,
        1.0,
    ),
    (
        "bug_choice",
        "answer is: option run_all",
        ["B"],
        FUNCTIONS,
        1.0,
    ),
    ("first_choice", "(B) since A is wrong", ["(B) a grey cat"], {}, 1.0),
    ("first_choice", "A, B, C, D", ["B"], {}, 0.0),
    ("first_choice", "Bob", ["B"], {}, 0.0),
    ("first_choice", "b", ["B"], {}, 0.0),
    ("first_choice", "", ["B"], {}, 0.0),
    # Numbers.
    ("first_integer", "The key is 71432. Or 9.", ["71432"], {}, 1.0),
    ("first_integer", "9 or 71432", ["71432"], {}, 0.0),
    ("first_integer", "", ["71432"], {}, 0.0),
    ("first_number", "It is 7.0", ["7"], {}, 1.0),
    ("first_number", "-3", ["3"], {}, 0.0),
    ("first_number", "1,234", ["1234"], {}, 1.0),
    ("first_number", "none", ["7"], {}, 0.0),
    ("last_integer", "It returns -42.", ["-42"], {}, 1.0),
    ("last_integer", "42 is it", ["42"], {}, 0.0),
    ("last_integer", "", ["42"], {}, 0.0),
    ("leading_integers", "[1, 4, 9]", ["1", "4", "8"], {}, 2 / 3),
    ("leading_integers", "9 1 4", ["1", "4"], {}, 0.0),
    ("key_value", '"00a0-6bcb".', ["00a0-6bcb"], {}, 1.0),
    ("key_value", "x00a0-6bcb", ["00a0-6bcb"], {}, 0.0),
    ("competition_integer", r"so 5. \boxed{12} no, \boxed{033}", ["33"], {}, 1.0),
    ("competition_integer", r"\boxed{x = 33}", ["033"], {}, 1.0),
    ("competition_integer", "The answer is 33, not 34", ["33"], {}, 1.0),
    ("competition_integer", "ANSWER: 33\nor 34", ["33"], {}, 1.0),
    ("competition_integer", "The answer is 1,033", ["1033"], {}, 1.0),
    ("competition_integer", r"\boxed{33} of 34", ["33"], {}, 1.0),
    ("competition_integer", "we get 12\nthus 33\n", ["33"], {}, 1.0),
    ("competition_integer", r"33 \boxed{34}", ["33"], {}, 0.0),
    ("competition_integer", "", ["33"], {}, 0.0),
    # Percentages: half for ten points, a quarter for twenty.
    ("exponential_similarity", "40%", ["40%"], {}, 1.0),
    ("exponential_similarity", "About 50.0% are, or 40%", ["40%"], {}, 0.5),
    ("exponential_similarity", "20%", ["40%"], {}, 0.25),
    ("exponential_similarity", "45%", ["40%"], {}, 0.7071068),
    ("exponential_similarity", "0%", ["100%"], {}, 1 / 1024),
    ("exponential_similarity", "60%", ["40%", "50%"], {}, 0.5),
    ("exponential_similarity", "40", ["40%"], {}, 0.0),
    ("exponential_similarity", "most", ["40%"], {}, 0.0),
    ("exponential_similarity", "", ["40%"], {}, 0.0),
    # Orders: the share of pairs in the right order.
    ("concordance_index", "3, 1, 4, 2", ["3, 1, 4, 2"], {}, 1.0),
    ("concordance_index", "2, 4, 1, 3", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "1, 3, 4, 2", ["3, 1, 4, 2"], {}, 5 / 6),
    ("concordance_index", "Summaries 3,1,\n2, 4.", ["3, 1, 4, 2"], {}, 5 / 6),
    ("concordance_index", "10, 2, 1", ["1, 2, 10"], {}, 0.0),
    ("concordance_index", "3, 1, 4", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "3, 1, 4, 2, 2", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "3, 1, 4, 5", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "3 1 4 2", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "1,, 2", ["1, 2"], {}, 0.0),
    ("concordance_index", "in this order", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "", ["3, 1, 4, 2"], {}, 0.0),
    ("concordance_index", "1", ["1"], {}, 1.0),
    # Clozes: JSON or Python literals, never evaluated.
    (
        "cloze_exact",
        '{"<m-0>": "Otto", "<m-1>": "X"}',
        ['{"<m-0>": "Otto", "<m-1>": "Y"}'],
        {},
        0.5,
    ),
    ("cloze_exact", "{'<m-0>': 'Otto'} I think", ['{"<m-0>": "Otto"}'], {}, 1.0),
    ("cloze_exact", '{"<m-0>":\n "Otto"}', ['{"<m-0>": "Otto"}'], {}, 1.0),
    ("cloze_exact", "__import__('os').abort()", ['{"<m-0>": "Otto"}'], {}, 0.0),
    ("cloze_exact", "{1/0: 2}", ['{"<m-0>": "Otto"}'], {}, 0.0),
    ("cloze_partial", '{"<m-0>": "Otto Grey"}', ['{"<m-0>": "Otto Black"}'], {}, 1.0),
    ("cloze_partial", '{"<m-0>": 7}', ['{"<m-0>": "Otto"}'], {}, 0.0),
    ("cloze_partial", '{"<m-1>": "Otto"}', ['{"<m-0>": "None", "<m-1>": "Otto"}'], {}, 0.5),
    # Lists.
    ("list_subspan", "['The cat Otto']", ["Otto", "Anna"], {"several": False}, 1.0),
    ("list_subspan", "Otto the cat", ["Otto"], {}, 1.0),
    ("list_subspan", "Final Answer: ['Anna']", ["Otto"], {}, 0.0),
    ("list_subspan", "", ["Otto"], {}, 0.0),
    ("list_subspan", '["Otto", "Anna B"]', ["Anna", "Otto"], {"several": True}, 1.0),
    ("list_subspan", '["Anna Otto"]', ["Anna", "Otto"], {"several": True}, 0.0),
    ("list_subspan", "['Anna's cat']", ["annas cat"], {}, 1.0),
    # Each reference needs a different answer, whatever their order.
    ("list_subspan", '["Anna Otto", "Anna"]', ["Anna", "Otto"], {"several": True}, 1.0),
    ("list_subspan", "['x', 'y']", ["Anna", "Otto"], {"several": True}, 0.0),
    ("list_exact", "['The Otto']", ["Otto"], {}, 1.0),
    ("list_exact", "['Otto', 'x']", ["Otto"], {}, 1.0),
    ("list_exact", "", ["Otto"], {}, 0.0),
    ("list_exact", "**`Otto`**\nsince I say so", ["Otto"], {}, 1.0),
    ("list_exact", "I think\nFinal Answer: Otto", ["Otto"], {}, 1.0),
    ("list_exact", "['Otto', `'Anna'`]", ["Anna", "Otto"], {"several": True}, 1.0),
    ("list_exact", "**['Otto', **'Anna']**", ["Anna", "Otto"], {"several": True}, 1.0),
    ("list_exact", "['Otto', 'Anna']", ["Anna", "Otto"], {"several": True}, 1.0),
    ("list_exact", "['Otto']", ["Anna", "Otto"], {"several": True}, 0.0),
    ("list_f1", "['Otto the cat']", ["Otto"], {}, 2 / 3),
    ("list_f1", "", ["Otto"], {}, 0.0),
    ("list_coverage", "['Otto', 'x']", ["Anna", "Otto"], {"several": True}, 0.5),
    # Overlap.
    ("rouge_l", "the cat sat on the mat", ["the cat lay on the mat"], {}, 0.8),
    ("rouge_l", "", ["the cat"], {}, 0.0),
    ("rouge_l", "...", ["the cat"], {}, 0.0),
    ("rouge_l", "the cat", ["..."], {}, 0.0),
    ("rouge_l", "dog", ["cat", "dog"], {}, 1.0),
    ("rouge_l_recall", "a b", ["a b c d"], {}, 0.5),
    ("rouge_1_recall", "d a", ["a b c d"], {}, 0.5),
    ("rouge_2_recall", "a b c", ["a b c d"], {}, 2 / 3),
    ("rouge_l_chinese", "今天天气很好", ["今天天气很好"], {}, 1.0),
    ("rouge_l_sum", "a b\nc d", ["a b\nc d"], {}, 1.0),
    ("rouge_geometric_mean", "the cats sat down", ["the cat sat down"], {}, 1.0),
    # Rouge-1 and -L are 2/3, Rouge-2 is 1/2.
    ("rouge_geometric_mean", "the cat", ["the cat sat down"], {}, (2 / 9) ** (1 / 3)),
    ("rouge_geometric_mean", "", ["the cat"], {}, 0.0),
    ("bleu_1", "a b x y", ["a b c d"], {}, 0.5),
    ("bleu_4", "a b c d e", ["a b c d f"], {}, 0.5),
    ("bleu_4", "", ["a b c d"], {}, 0.0),
    ("meteor", "the cat sat", ["the cat sat"], {}, 1 - 0.5 * (1 / 3) ** 3),
    ("meteor", "", ["the cat"], {}, 0.0),
]


@pytest.mark.parametrize(("name", "prediction", "references", "extras", "score"), CASES)
def test_a_score_equals_the_one_computed_by_hand(name, prediction, references, extras, score):
    assert getattr(scorers, name)(prediction, references, **extras) == pytest.approx(
        score, abs=1e-6
    )


def test_every_scorer_has_a_case():
    assert {name for name, *_ in CASES} == set(scorers.__all__)


@pytest.mark.parametrize("name", ["exponential_similarity", "concordance_index"])
def test_a_malformed_reference_is_an_error(name):
    with pytest.raises(ValueError, match="reference"):
        getattr(scorers, name)("40%", ["most of them"])


@given(order=st.permutations(range(1, 7)))
@few
def test_the_concordance_index_agrees_with_kendalls_tau(order):
    """For permutations without ties, tau is 2 c - 1."""
    from scipy import stats

    places = [order.index(item) for item in range(1, 7)]
    expected = (stats.kendalltau(range(6), places).statistic + 1) / 2
    given = ", ".join(map(str, order))
    assert scorers.concordance_index(given, ["1, 2, 3, 4, 5, 6"]) == pytest.approx(expected)


def test_the_best_reference_counts():
    for name in ("token_f1", "token_f1_chinese", "rouge_l", "rouge_l_sum", "meteor"):
        scorer = getattr(scorers, name)
        assert scorer("the cat sat", ["dog", "the cat"]) == pytest.approx(
            max(scorer("the cat sat", ["dog"]), scorer("the cat sat", ["the cat"]))
        )


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


@given(prediction=texts, reference=texts)
@few
def test_all_scores_are_between_zero_and_one(prediction, reference):
    extras = {"all_classes": ["cat", "dog"], "options": ["a", "b", "c", "d"], "several": True}
    special = {
        "paragraph_retrieval": "Paragraph 3",
        "last_choice": "B",
        "bug_choice": "B",
        "cloze_exact": json.dumps({"<mask-0>": reference}),
        "cloze_partial": json.dumps({"<mask-0>": reference}),
        "exponential_similarity": "40%",
        "concordance_index": "2, 1",
    }
    numbers = ("first_number", "last_integer", "leading_integers", "competition_integer")
    for name in scorers.__all__:
        expected = "3" if name in numbers else special.get(name, reference)
        assert 0 <= getattr(scorers, name)(prediction, [expected], **extras) <= 1 + 1e-9, name


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("The  Cat's an-swer; a b.", "cats answer b"),
        ("A a AN the", ""),
        ("1,000.5", "10005"),
        ("Über the École", "über école"),
        ("theatre an", "theatre"),
        (string.punctuation, ""),
    ],
)
def test_normalisation_follows_squad(text, normalised):
    from sah.benchmarks.scorers.text import normalise

    assert normalise(text) == normalised


def longest_common(one, other):
    row = [0] * (len(other) + 1)
    for left in one:
        above = row[:]
        for column, right in enumerate(other, start=1):
            row[column] = (
                above[column - 1] + 1 if left == right else max(above[column], row[column - 1])
            )
    return row[-1]
