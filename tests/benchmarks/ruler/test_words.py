import math
import re
from collections import Counter

import pytest

from sah.benchmarks.ruler import Ruler

CWE_TASK = (
    "Below is a numbered list of words. In these words, some appear more often than others. "
    "Memorize the ones that appear most often.\n"
)
CWE_ASKED = (
    "Question: What are the 10 most common words in the above list?",
    " Answer: The top 10 words that appear most often in the list are:",
)
# Context tokens, frequency of common and of rare words; solved list: words, common, rare.
SHORT = (2048, 6, 1, (20, 3, 1))
LONG = (8000, 30, 3, (40, 10, 3))


@pytest.fixture(scope="module")
def generate(tiny):
    def make(task, context_tokens):
        benchmark = Ruler(subset=task, context_tokens=context_tokens, samples=2)
        return benchmark.examples(tiny.prompts, seed=0)

    return make


def listed(text):
    """Parse a numbered list, which must be numbered from 1."""
    found = re.findall(r"(\d+)\. (.+?)(?= \d+\. |$)", text)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    return [word for _, word in found]


@pytest.mark.parametrize(("tokens", "often", "rarely", "solved"), [SHORT, LONG])
def test_ten_words_are_common_and_all_others_are_rare(generate, tokens, often, rarely, solved):
    for example in generate("cwe", tokens):
        empty, before, text = example.context.split(CWE_TASK)
        assert empty == ""
        counts = Counter(listed(text.removesuffix("\n")))
        assert len(example.references) == len(set(example.references)) == 10
        expected = {word: often for word in example.references}
        assert {word: count for word, count in counts.items() if count != rarely} == expected
        assert len(counts) > 20

        words, answer = before.removesuffix("\n").split("\n" + "".join(CWE_ASKED) + " ")
        counts = Counter(listed(words))
        size, often_before, rarely_before = solved
        assert len(counts) == size
        assert set(listed(answer)) == {w for w, count in counts.items() if count == often_before}
        assert len(listed(answer)) == 10
        assert set(counts.values()) == {often_before, rarely_before}


def test_the_question_of_cwe_is_worded_as_published(generate):
    for example in generate("cwe", SHORT[0]):
        assert (example.question, example.answer_prefix) == CWE_ASKED
        assert example.max_new_tokens == 120


def test_the_vocabulary_continues_with_pairs_of_words():
    import random
    from itertools import islice

    from sah.benchmarks.ruler.words import _vocabulary

    words = list(islice(_vocabulary(random.Random(0)), 12_000))
    assert len(set(words)) == 12_000
    assert all("-" in word for word in words[-1000:])


def test_coded_words_follow_a_zeta_distribution_with_exponent_two(generate):
    for example in generate("fwe", 6000):
        before, text = example.context.removesuffix("\n").split("coded words. ")
        assert before.endswith("Find the three most frequently appeared ")
        counts = Counter(text.split(" "))
        ranked = counts.most_common()
        assert ranked[0][0] == "..."
        assert [word for word, _ in ranked[1:4]] == list(example.references)
        assert ranked[3][1] > ranked[4][1], "the third must be more frequent than the fourth"
        assert all(re.fullmatch("[a-z]{6}", word) for word, _ in ranked[1:])
        # There is one total whose total / zeta(2) / rank^2, rounded down, are the frequencies.
        low = max(count * rank**2 for rank, (_, count) in enumerate(ranked, 1))
        high = min((count + 1) * rank**2 for rank, (_, count) in enumerate(ranked, 1))
        assert low < high
        share = ranked[0][1] / sum(counts.values())
        assert share == pytest.approx(6 / math.pi**2, abs=0.05)


def test_the_question_of_fwe_is_worded_as_published(generate):
    for example in generate("fwe", 1024):
        assert example.context.startswith(
            "Read the following coded text and track the frequency of each coded word. Find the "
            "three most frequently appeared coded words. "
        )
        assert example.question == (
            "Question: Do not provide any explanation. Please ignore the dots '....'. What are the "
            "three most frequently appeared words in the above coded text?"
        )
        assert example.answer_prefix == (
            " Answer: According to the coded text above, the three most frequently appeared words "
            "are:"
        )
        assert example.max_new_tokens == 50


@pytest.mark.parametrize("context_tokens", range(700, 800, 10))
def test_the_third_word_is_always_more_frequent_than_the_fourth(generate, context_tokens):
    for example in generate("fwe", context_tokens):
        counts = Counter(example.context.removesuffix("\n").split("coded words. ")[1].split(" "))
        third, fourth = (count for _, count in counts.most_common()[3:5])
        assert third > fourth


@pytest.mark.parametrize(("task", "spare"), [("cwe", 60), ("fwe", 30)])
def test_prompts_fill_the_budget(generate, prompt_tokens, task, spare):
    """One more word of cwe occurs up to six times, each with its number: about ten tokens."""
    for tokens in (2000, 3000):
        for example in generate(task, tokens):
            length = prompt_tokens(example) + example.max_new_tokens
            assert tokens - spare < length <= tokens
