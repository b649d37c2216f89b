"""Equivalence of mathematical answers: pairs written by hand, and math-verify's opinion of them."""

import pytest

from sah.benchmarks.scorers import final_choice, final_number, math_equivalence
from sah.benchmarks.scorers.choices import choice_simple_evals, final_letter
from sah.benchmarks.scorers.equivalence import equivalent, final_answer, math_answer
from sah.benchmarks.scorers.expressions import values
from sah.benchmarks.scorers.numbers import competition_integer, number_answer

EQUAL = (
    (r"\frac{1}{2}", "0.5"),
    (r"\dfrac12", "1/2"),
    (r"\frac{2}{4}", "1/2"),
    (r"-\frac{1}{3}", r"\frac{-1}{3}"),
    (r"-\frac{1}{3}", r"\frac{1}{-3}"),
    ("1,234", "1234"),
    ("10{,}080", r"10,\!080"),
    ("18.00", "18"),
    (r"\$18", "18"),
    ("5 inches", "5"),
    (r"5\text{ cm}^2", "5"),
    (r"30^\circ", "30"),
    (r"30^{\circ}", "30"),
    (r"3\frac12", "7/2"),
    (r"1\frac{4}{5}", "1.8"),
    (".5", "0.5"),
    ("007", "7"),
    ("+3", "3"),
    (r"\text{Evelyn}", "Evelyn"),
    (r"\text{(C)}", "C"),
    ("(C)", "C"),
    (r"\text{even}", "even"),
    ("x+1", "1+x"),
    ("(x+1)^2", "x^2+2x+1"),
    ("2x+3", "3+2x"),
    ("x(x-1)", "x^2-x"),
    (r"\frac{x}{2}", "0.5x"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    ("p - q", "-q+p"),
    ("ab", "ba"),
    ("6xyz", "6zyx"),
    ("x^{12}", "x^{6}x^6"),
    (r"\sqrt{8}", r"2\sqrt2"),
    (r"\frac{\sqrt{3}}{3}", r"\frac{1}{\sqrt{3}}"),
    (r"\sqrt[3]{27}", "3"),
    (r"\sqrt{12}+\sqrt{3}", r"3\sqrt{3}"),
    ("2^{-1}", r"\frac12"),
    ("10^{-3}", "0.001"),
    (r"2 \times 10^{3}", "2000"),
    ("5!", "120"),
    (r"\binom{5}{2}", "10"),
    (r"\pi r^2", r"r^2\pi"),
    (r"\frac{\pi}{2}", r"0.5\pi"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"\sin(2x)", r"2\sin x\cos x"),
    (r"\log_2 8", "3"),
    (r"\ln e", "1"),
    ("1,2", "2,1"),
    ("1, 2, 3", "3,1,2"),
    (r"1 \text{ and } 2", "1,2"),
    (r"-1 \text{ or } 4", "4,-1"),
    (r"\{1,2\}", "1,2"),
    (r"\left\{1,2\right\}", r"\{2,1\}"),
    (r"1\pm\sqrt{19}", r"1-\sqrt{19},1+\sqrt{19}"),
    ("(1,2)", "(1.0,2)"),
    (r"\left(3, \frac{\pi}{2}\right)", r"(3,\frac{\pi}{2})"),
    (r"\left( \frac{1}{2}, 2 \right)", "(0.5,2)"),
    ("[0,1)", "[0, 1)"),
    (r"(-\infty,2)\cup(3,\infty)", r"(3,\infty)\cup(-\infty,2)"),
    (r"x\in[-2,7]", "[-2,7]"),
    ("x=5", "5"),
    ("x = 1, x = -2", "-2,1"),
    ("y=2x+3", "y=3+2x"),
    ("y=2x+3", "2x-y+3=0"),
    ("x^2+y^2=1", "x^2+y^2-1=0"),
    ("x>3", "3<x"),
    (r"x \ge 3", r"3 \leq x"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix} 1 \\ \frac{4}{2} \end{pmatrix}"),
    (r"\begin{pmatrix}1&0\\0&1\end{pmatrix}", r"\begin{bmatrix}1&0\\0&1\end{bmatrix}"),
    ("2516_8", "2516_{8}"),
    ("3:2", "3 : 2"),
    ("f(x)=x+1", "x+1"),
)
# math-verify 0.9.0 calls these different.
EQUAL_UNLIKE_MATH_VERIFY = (
    (r"18\%", "18"),
    ("7 3/4", "31/4"),
    ("π/2", r"\frac\pi2"),
    (r"e^{i\pi}", "-1"),
    ("(1+i)^2", "2i"),
    (r"2 < x \leq 5", r"5 \ge x > 2"),
    (r"\emptyset", r"\varnothing"),
)
DIFFERENT = (
    ("1", "2"),
    ("0.333", r"\frac13"),
    ("3.14", r"\pi"),
    ("1,2", "1,3"),
    ("(1,2)", "(2,1)"),
    ("[0,1)", "[0,1]"),
    ("(0,1)", "[0,1]"),
    ("11", "1,1"),
    ("x+1", "x-1"),
    ("2x", "x^2"),
    ("x", "y"),
    ("(x+1)^2", "x^2+1"),
    (r"\sqrt{2}", "1.414"),
    (r"\sqrt{x^2}", "x"),
    ("10", "100"),
    ("1234", "123.4"),
    (r"\text{even}", r"\text{odd}"),
    ("A", "B"),
    ("x>3", "x<3"),
    ("x>3", r"x\ge3"),
    ("2^{10}", "2^{11}"),
    ("9^{9^{9^9}}", "9^{9^{9^8}}"),
    ("12345678901234567890", "12345678901234567891"),
    ("-5", "5"),
    (r"\frac{1}{2}", "2"),
    (r"3\frac12", "3/2"),
    ("x=5", "x=6"),
    ("y=2x+3", "y=2x-3"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}2\\1\end{pmatrix}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1&2\end{pmatrix}"),
    ("1+i", "1-i"),
    (r"\infty", r"-\infty"),
    ("", "0"),
    ("3:2", "2:3"),
    (r"\log_2 3", r"\log_3 2"),
    ("1/2", "1/3"),
)
# math-verify 0.9.0 calls these equal.
DIFFERENT_UNLIKE_MATH_VERIFY = (
    ("1,2", "(1,2)"),
    ("1,1,2", "1,2"),
    ("east", "seat"),
    ("2516_8", "2516_9"),
)


@pytest.mark.parametrize(("one", "other"), EQUAL + EQUAL_UNLIKE_MATH_VERIFY)
def test_equal_answers_are_equivalent_from_either_side(one, other):
    assert equivalent(one, other)
    assert equivalent(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT + DIFFERENT_UNLIKE_MATH_VERIFY)
def test_different_answers_are_not_equivalent_from_either_side(one, other):
    assert not equivalent(one, other)
    assert not equivalent(other, one)


def test_math_verify_agrees_where_it_is_said_to():
    math_verify = pytest.importorskip("math_verify")
    parse = math_verify.parse

    def opinion(one, other):
        boxed = [parse(rf"\boxed{{{side}}}", parsing_timeout=None) for side in (other, one)]
        return math_verify.verify(*boxed, timeout_seconds=None)

    same, different = EQUAL + DIFFERENT_UNLIKE_MATH_VERIFY, DIFFERENT + EQUAL_UNLIKE_MATH_VERIFY
    # It takes any time over a tower of powers.
    quick = [pair for pair in same + different if "9^{9" not in pair[0]]
    assert {pair for pair in quick if opinion(*pair)} == {*same}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"first \boxed{1}, so \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\boxed{3}}", r"\boxed{3}"),
        (r"\boxed{\{1, 2\}} and } or {", r"\{1, 2\}"),
        (r"\boxed{3} or \boxed{4", "3"),
        ("boxed{33}", "33"),
        (r"\fbox{33}", "33"),
        ("Final Answer: The final answer is $5$. I hope it is correct.", "5"),
        ("**Answer:** 5", "5"),
        ("The answer is 2.5. Done.", "2.5"),
        ("The answer to this is hard.\nSo $x=1$ and $x=2$.", "x=2"),
        ("no idea", None),
        ("", None),
        (r"\boxed{}", ""),
    ],
)
def test_the_final_answer_is_the_last_one_that_is_stated(text, expected):
    assert final_answer(text) == expected


def test_nothing_is_not_an_answer():
    assert math_equivalence(r"\boxed{}", [""]) == 0
    assert math_equivalence("", ["0"]) == 0
    assert math_answer(r"\boxed{}") is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("0.50", "1/2"),
        (r"x = \frac{2}{4}", "1/2"),
        ("1,234", "1234"),
        ("2, 1", "1,2"),
        (r"1\pm 2", "-1,3"),
        ("1+x", "1+x"),
        (r"\text{Evelyn}", "evelyn"),
        (r"2\sqrt{2} \text{ cm}", r"2\sqrt{2}"),
    ],
)
def test_equal_votes_have_one_normal_form(answer, expected):
    assert math_answer(rf"\boxed{{{answer}}}") == expected


@pytest.mark.parametrize(
    "text",
    ["9^{9^{9^9}}", "9^{99999999}", "99999!", "9!!!!", r"\binom{99999}{5}", "1/0", "2^{5000}"],
)
def test_values_out_of_bounds_are_no_values(text):
    assert values(text) is None
    assert equivalent(text, text)


def test_variables_have_different_values():
    names = [*"abcdfghjklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ∞", r"\theta", r"\alpha", r"\phi"]
    assert len({values(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        (r"so \boxed{18}", "18", 1),
        (r"\boxed{\$18.00}", "18", 1),
        (r"\boxed{1,234}", "1,234", 1),
        (r"\boxed{1{,}234 \text{ dollars}}", "1,234", 1),
        (r"\boxed{18\text{ eggs}} of 20", "18", 1),
        (r"\boxed{x = 18}", "18", 1),
        (r"\boxed{\frac{36}{2}}", "18", 1),
        # Not the last number, 2.
        (r"\boxed{\frac{9}{2}}", "2", 0),
        ("9 + 9 = 18\n#### 18", "18", 1),
        ("The answer is $18 a day, not 20", "18", 1),
        ("She makes 9 * 2 = $18.", "18", 1),
        ("He has 3,000.50 left", "3000.5", 1),
        ("-18", "18", 0),
        ("18.5", "18", 0),
        (f"18{'0' * 500}", f"18{'0' * 500}", 1),
        ("none", "18", 0),
        ("", "18", 0),
    ],
)
def test_numbers_of_gsm8k(prediction, reference, expected):
    assert final_number(prediction, [reference]) == expected


def test_votes_for_equal_numbers_are_equal():
    texts = (r"\boxed{18}", "The answer is 18.00", "#### 18", r"\boxed{\frac{36}{2}}")
    assert {number_answer(text) for text in texts} == {"18"}
    assert number_answer("18.50") == "37/2"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [(r"\frac{25}{33}", 0), (r"\frac{66}{2}", 1), ("2^5 + 1", 1), ("m+n=33", 1), ("", 0)],
)
def test_an_aime_answer_is_the_value_of_its_box(answer, expected):
    assert competition_integer(rf"\boxed{{{answer}}}", ["33"]) == expected


@pytest.mark.parametrize(
    ("prediction", "letter"),
    [
        ("Answer: B", "B"),
        ("**Answer: B**", "B"),
        ("answer : (B)", "B"),
        (r"Answer: $\boxed{B}$", "B"),
        (r"Answer: \text{B}", "B"),
        ("Answer: B) 10 eV", "B"),
        (r"\boxed{\text{(B)}}", "B"),
        ("The correct answer is (B), since A is wrong.", "B"),
        ("the final answer is B", "B"),
        ("The answer is: B.", "B"),
        ("Answer: A. No, wait.\n\nAnswer: B", "B"),
        (r"Answer: A, so \boxed{B}", "B"),
        ("The answer is A model of it.", None),
        ("Answer: Because", None),
        ("Answer: b", None),
        ("Answer: E", None),
        ("B", None),
        ("", None),
    ],
)
def test_the_last_letter_that_is_stated_is_the_choice(prediction, letter):
    assert final_letter(prediction) == letter
    assert final_choice(prediction, ["B"]) == (letter == "B")


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("Answer: B", 1),
        ("answer: $B$", 1),
        ("Answer: B, no, Answer: A", 1),
        ("Answer: Because it is A", 1),
        ("Answer: A\nAnswer: B", 0),
        (r"\boxed{B}", 0),
        ("**Answer:** B", 0),
        ("Answer: b", 0),
    ],
)
def test_simple_evals_takes_the_first_letter_after_answer(prediction, expected):
    assert choice_simple_evals(prediction, ["B"]) == expected
