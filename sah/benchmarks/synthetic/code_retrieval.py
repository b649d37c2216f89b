"""Finding the function that a description fits, in long code, after RepoQA (arXiv:2406.06025).

Not the published data: the code is the standard library of the Python that runs. As in
evalplus/repoqa (Searching Needle Function), the function lies at a random depth of code that
surrounds it in its file and the files beside it, a comment with its path begins each file, and the
instruction is given before the code and after the description. Deviations:
- The description is the first sentence of the function's docstring, if it is plain English without
  a part of the name and fits no other function (theirs: four paragraphs by a model). Docstrings are
  left out of the code.
- The answer is the function's name, compared exactly. Theirs repeats the function, and is right if
  its BLEU to that function is at least 0.8 and larger than to any other.
- Only Python, without tests (theirs: 50 repositories in five languages); the order of the files is
  drawn for each sample (theirs: sorted by imports). No file is marked as cut.
"""

import platform
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from sah.benchmarks.generated import Generate, GeneratedBenchmark
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.scorers import first_identifier
from sah.benchmarks.scoring import Task
from sah.benchmarks.synthetic.standard_library import (
    Library,
    library,
    library_digest,
    library_files,
)
from sah.errors import ConfigurationError
from sah.seeding import derive
from sah.types import Example

_TASK = "function_name"
_INSTRUCTION = (
    "Based on the function description and the code, find the described function in the code and "
    "answer only with its name."
)


@dataclass(frozen=True, kw_only=True)
class CodeRetrieval(GeneratedBenchmark):
    """A function of the standard library, named by its description; the longest code that fits."""

    name: str = "code_retrieval"

    title: ClassVar[str] = "functions of Python's library by description, generated; after RepoQA"
    licence: ClassVar[str] = "PSF-2.0; rules Apache-2.0"
    data: ClassVar[str] = "the standard library of the Python that runs"
    tasks: ClassVar = {_TASK: Task(max_new_tokens=32, scorer=first_identifier)}

    def find_content(self) -> dict[str, Any]:
        """Return the version of Python and the digest of the files that are read."""
        return {"python": platform.python_version(), "library": library_digest()}

    def check_data(self) -> None:
        """Check that the standard library has sources; raises DatasetError."""
        library_files()

    def generator(self, task: str, seed: int) -> Generate:
        """Return the generator; the functions are asked for in an order drawn from the seed."""
        source = library(library_digest())
        order = list(range(len(source.functions)))
        random.Random(derive(seed, task)).shuffle(order)
        return partial(function_example, source, order)


def function_example(
    source: Library, order: list[int], number: int, budget: Budget, seed: int
) -> Example:
    """Generate one sample: a function, and as many lines of code around it as fit.

    Raises:
        ConfigurationError: if there are fewer functions than samples, the function does not fit
            into the budget, or the budget is more than all code.
    """
    if number >= len(order):
        raise ConfigurationError(
            f"benchmark.samples: the standard library of Python {platform.python_version()} has "
            f"only {len(order)} functions that can be asked for; lower samples"
        )
    function = source.functions[order[number]]
    draw = random.Random(seed)
    depth = draw.random()
    others = [index for index in range(len(source.modules)) if index != function.module]
    draw.shuffle(others)
    module = source.modules[function.module]
    needle = "".join(module[function.first : function.end])
    # All code in a circle, from the end of the function to its beginning.
    around = [
        *module[function.end :],
        *(line for index in others for line in source.modules[index]),
        *module[: function.first],
    ]
    units, estimates = budget.enough(_outwards(needle, around, depth))

    def build(count: int) -> Example:
        before = int(depth * (count - 1))
        after = count - 1 - before
        code = "".join([*around[len(around) - before :], needle, *around[:after]])
        return Example(
            id=f"{_TASK}-{number}",
            task=_TASK,
            context=f"{_INSTRUCTION}\n\n{code}\n",
            question=f"Function description: {function.description}\n\n{_INSTRUCTION}",
            answer_prefix=" The function is named",
            references=(function.name,),
            max_new_tokens=CodeRetrieval.tasks[_TASK].max_new_tokens,
        )

    if len(units) > len(around):
        everything = build(len(units))
        longest = budget.tokenizer.prompt_length(everything) + everything.max_new_tokens
        if longest < budget.context_tokens:
            raise ConfigurationError(
                f"benchmark.context_tokens={budget.context_tokens} is too large: a prompt with all "
                f"code of the standard library and its answer take {longest} tokens; lower it to "
                "that"
            )
    example = budget.fill(build, estimates, least=1)
    return budget.with_needles(example, {needle: function.name})


def _outwards(needle: str, around: list[str], depth: float) -> Iterator[str]:
    """Yield the function and then lines before or after it, in the order in which code grows."""
    yield needle
    for count in range(1, len(around) + 1):
        before = int(depth * count)
        if before > int(depth * (count - 1)):
            yield around[len(around) - before]
        else:
            yield around[count - before - 1]
