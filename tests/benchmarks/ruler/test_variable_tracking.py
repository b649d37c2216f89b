import re

import pytest

from sah.benchmarks.ruler import Ruler

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
TASK = "Memorize and track the chain(s) of variable assignment hidden in the following text."
STATEMENT = re.compile(r"VAR ([A-Z]+) = (?:VAR ([A-Z]+) |(\d{5}))")
CONTEXT_TOKENS = 1500


@pytest.fixture(scope="module")
def examples(tiny):
    benchmark = Ruler(subset="vt", context_tokens=CONTEXT_TOKENS, samples=5)
    return benchmark.examples(tiny.prompts, seed=0)


def parts(example):
    """Split the context into the solved example and the text asked about."""
    empty, solved, asked = example.context.split(f"{TASK}\n\n")
    assert empty == ""
    return solved, asked


def assigned(text):
    """Follow the assignments in a text; return the variables of each value, in order."""
    value_of, found = {}, {}
    for name, source, number in STATEMENT.findall(text):
        assert name not in value_of, "assigned once"
        value_of[name] = number or value_of[source]
        found.setdefault(value_of[name], []).append(name)
    return found


def test_one_chain_of_four_hops_is_hidden(examples):
    for example in examples:
        chains = assigned(parts(example)[1])
        (value,) = re.findall(r"assigned the value (\d+) in the text above\.", example.question)
        assert 10_000 <= int(value) <= 99_998
        assert chains == {value: list(example.references)}
        assert len(example.references) == 5
        assert all(re.fullmatch("[A-Z]{5}", name) for name in example.references)


def test_the_text_is_noise_around_the_assignments(examples):
    for example in examples:
        text = parts(example)[1]
        assert text.endswith("\n")
        lines = text.removesuffix("\n").split("\n")
        statements = [line for line in lines if STATEMENT.fullmatch(line)]
        assert len(statements) == 5
        assert {line for line in lines if line not in statements} == {NOISE}
        assert lines[-1] == NOISE


def test_the_prompt_begins_with_a_solved_example_of_500_tokens(examples, tiny):
    line = len(tiny.prompts.tokenizer(NOISE + "\n").input_ids)
    for example in examples:
        solved, _ = parts(example)
        text, answer = solved.split("they are: ")
        (value,) = set(re.findall(r"value (\d+)", text))
        assert value not in example.question
        (names,) = assigned(text).values()
        assert assigned(text) == {value: names}
        assert answer == f" {' '.join(names)}\n\n"
        assert all(re.fullmatch("[A-Z]{3}", name) for name in names)
        assert "VAR" not in names
        prompt = f"{TASK}\n\n{text}they are: "
        assert 500 - line < len(tiny.prompts.tokenizer(prompt).input_ids) <= 500


def test_the_question_is_worded_as_published(examples):
    for example in examples:
        (value,) = re.findall(r"\d{5}", example.question)
        assert example.question == (
            f"Question: Find all variables that are assigned the value {value} in the text above."
        )
        assert example.answer_prefix == (
            " Answer: According to the chain(s) of variable assignment in the text above, 5 "
            f"variables are assigned the value {value}, they are: "
        )
        assert example.max_new_tokens == 30


def test_less_than_a_line_of_the_budget_is_left(examples, tiny, prompt_tokens):
    line = len(tiny.prompts.tokenizer(NOISE + "\n").input_ids)
    for example in examples:
        length = prompt_tokens(example) + 30
        assert CONTEXT_TOKENS - line < length <= CONTEXT_TOKENS


def test_samples_differ_and_chains_are_spread_over_the_text(tiny):
    benchmark = Ruler(subset="vt", context_tokens=CONTEXT_TOKENS, samples=30)
    made = benchmark.examples(tiny.prompts, seed=0)
    assert len({example.references for example in made}) == 30
    assert len({parts(example)[0] for example in made}) == 30
    texts = [parts(example)[1] for example in made]
    depths = [match.start() / len(text) for text in texts for match in STATEMENT.finditer(text)]
    for low in (0, 0.25, 0.5, 0.75):
        assert any(low <= depth < low + 0.25 for depth in depths)


def test_depth_and_length_of_each_assignment_are_noted(examples, tiny):
    for example in examples:
        text = parts(example)[1]
        before = len(example.context) - len(text)
        assert example.metadata["needles"] == [
            {
                "answer": found[1],
                "depth": pytest.approx((before + found.start()) / len(example.context), abs=1e-6),
                "tokens": len(tiny.prompts.tokenizer(found[0]).input_ids),
            }
            for found in STATEMENT.finditer(text)
        ]
