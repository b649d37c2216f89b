"""The docstrings of the interpreter's own files name each function; they are not in the prompt."""

import ast
import copy
import inspect
import platform
import re
import sysconfig
import tokenize
from functools import cache
from pathlib import Path

import pytest

from sah.benchmarks.scorers import first_identifier
from sah.benchmarks.synthetic import standard_library
from sah.benchmarks.synthetic.code_retrieval import CodeRetrieval
from sah.errors import ConfigurationError, DatasetError
from sah.results import directory

FOLDER = Path(sysconfig.get_paths()["stdlib"])


@cache
def documented():
    """Return name, docstring on one line, and code of each function that has a docstring."""
    found = []
    for file in FOLDER.glob("[!_]*.py"):
        with tokenize.open(file) as source:
            tree = ast.parse(source.read())
        found += [
            (node.name, " ".join(inspect.cleandoc(text).split()), node)
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and (text := ast.get_docstring(node))
        ]
    return found


@pytest.fixture(scope="module")
def examples(samples):
    return [
        *samples(CodeRetrieval, None, 4000, range(1), samples=20),
        *samples(CodeRetrieval, None, 12_000, range(1, 2), samples=3),
    ]


def description_of(example):
    first, _, rest = example.question.partition("\n\n")
    assert rest in example.context
    return first.removeprefix("Function description: ")


def solve(example):
    """Return the functions whose docstrings begin with the description, and are in the context."""
    description = description_of(example)
    return [
        (name, node)
        for name, text, node in documented()
        if text == description or text.startswith(f"{description} ")
        if f"def {name}(" in example.context
    ]


def test_exactly_one_function_has_the_description_and_its_name_scores_1(examples):
    for example in examples:
        ((name, _),) = solve(example)
        assert example.references == (name,)
        task = CodeRetrieval.tasks[example.task]
        assert task.score(example, f" `{name}`.").score == 1
        others = {other for other, *_ in documented()} - {name}
        assert not any(task.score(example, other).score for other in list(others)[:200])


def test_the_function_is_whole_and_once_in_the_context_without_its_docstring(examples):
    for example in examples:
        ((name, node),) = solve(example)
        assert example.context.count(f"def {name}(") == 1
        assert description_of(example).removesuffix(".") not in example.context
        expected = ast.dump(ast_without_docstring(node))
        (needle,) = example.metadata["needles"]
        start = round(needle["depth"] * len(example.context))
        code = example.context[start - 1 :].lstrip("\n")
        # As many lines as it takes to parse, without docstring the same tree.
        lines = inspect.cleandoc(code).splitlines()
        shown = next(
            tree
            for end in range(1, len(lines))
            if (tree := parsed("\n".join(lines[:end]))) and len(ast.dump(tree)) >= len(expected)
        )
        assert ast.dump(shown.body[0]) == expected


def parsed(text):
    try:
        return ast.parse(text)
    except SyntaxError:
        return None


def ast_without_docstring(node):
    without = copy.copy(node)
    without.body = node.body[1:]
    return without


def test_the_description_has_no_part_of_the_name(examples):
    for example in examples:
        (name,) = example.references
        description = description_of(example).lower()
        assert name.lower() not in description
        for part in name.lower().split("_"):
            assert len(part) < 3 or part not in description.split()


def test_the_code_without_docstrings_is_python_and_has_none():
    for module in standard_library.library(standard_library.library_digest()).modules:
        for node in ast.walk(ast.parse("".join(module))):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
                # Only those on the line of their `def`.
                assert node.body[0].lineno == node.body[0].end_lineno
                line = module[node.body[0].lineno - 1]
                assert line.lstrip().startswith(("def", "class")) or ";" in line, line


def test_a_longer_context_asks_for_the_same_function(samples):
    short, long = (samples(CodeRetrieval, None, length, range(1)) for length in (4000, 8000))
    for one, other in zip(short, long, strict=True):
        assert (one.question, one.references) == (other.question, other.references)
        assert len(other.context) > 1.5 * len(one.context)


def test_functions_lie_at_all_depths(examples):
    depths = [example.metadata["needles"][0]["depth"] for example in examples]
    assert min(depths) < 0.25
    assert max(depths) > 0.6


def test_no_function_is_asked_for_twice_and_too_many_samples_are_refused(examples):
    assert len({example.references for example in examples[:20]}) == 20
    functions = standard_library.library(standard_library.library_digest()).functions
    assert len(functions) > 60
    generate = CodeRetrieval().generator("function_name", 0)
    with pytest.raises(ConfigurationError, match=rf"only {len(functions)} functions .*lower"):
        generate(len(functions), None, 0)


def test_more_context_than_there_is_code_is_refused(monkeypatch, unlimited):
    few = [FOLDER / "bisect.py", FOLDER / "heapq.py"]
    monkeypatch.setattr(standard_library, "library_files", lambda: few)
    with pytest.raises(ConfigurationError, match=r"=1000000 is too large: .* lower it") as caught:
        CodeRetrieval(context_tokens=10**6, samples=1).examples(unlimited, seed=0)
    largest = int(re.search(r"take (\d+) tokens", str(caught.value))[1])
    (example,) = CodeRetrieval(context_tokens=largest, samples=1).examples(unlimited, seed=0)
    assert unlimited.prompt_length(example) + example.max_new_tokens == largest
    with pytest.raises(ConfigurationError):
        CodeRetrieval(context_tokens=largest + 1, samples=1).examples(unlimited, seed=0)


def test_an_interpreter_without_sources_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    with pytest.raises(DatasetError, match=r"has no \.py files"):
        CodeRetrieval().check_data()


def test_another_python_or_another_file_is_another_experiment(compose, monkeypatch):
    def composed():
        config = compose("model=tiny", "benchmark=code_retrieval")
        return config.benchmark.content, directory(config)

    content, place = composed()
    assert content["python"] == platform.python_version()
    assert composed() == (content, place)
    monkeypatch.setattr("platform.python_version", lambda: "3.99.0")
    assert composed()[1] != place
    monkeypatch.undo()
    files = standard_library.library_files()[1:]
    monkeypatch.setattr(standard_library, "library_files", lambda: files)
    assert composed()[1] != place


@pytest.mark.parametrize(
    ("answer", "score"),
    [
        ("heapreplace", 1),
        (" `heapreplace`.", 1),
        ("heapreplace()", 1),
        ("heapq.heapreplace", 1),
        ("```python\ndef heapreplace(heap, item):", 1),
        ("async def heapreplace", 1),
        ("**heapreplace**, which pops", 1),
        ("HeapReplace", 0),
        ("heapreplace_max", 0),
        ("the heapreplace", 0),
        ("", 0),
    ],
)
def test_the_first_identifier_is_compared(answer, score):
    assert first_identifier(answer, ("heapreplace",)) == score
