"""RULER's variable tracking `vt`: one chain of five assignments, hidden in noise.

As published, the prompt begins with a solved example of at most 500 tokens, whose variables have
three letters; those of the question have five. Deviations from NVIDIA's scripts: no variable is
called VAR, the solved example never uses the value asked for, and it is generated anew for each
sample, while theirs only gets new names and a new value.
"""

import random
from itertools import repeat

from sah.benchmarks.drawing import distinct, random_letters
from sah.benchmarks.haystacks import NOISE
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.ruler.tasks import TASKS
from sah.types import Example, PromptTokenizer

CHAINS = 1
HOPS = 4

_SOLVED_EXAMPLE_TOKENS = 500

_TASK = (
    "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
    "{text}\n"
)
_QUESTION = "Question: Find all variables that are assigned the value {value} in the text above."
# Spelled `assgined` until May 2025, as in `ruler_hub`.
_ANSWER_PREFIX = (
    " Answer: According to the chain(s) of variable assignment in the text above, {count} "
    "variables are assigned the value {value}, they are: "
)


def variable_tracking_example(number: int, budget: Budget, seed: int) -> Example:
    """Generate one sample: a chain, hidden in as many lines of noise as fit.

    Raises:
        ConfigurationError: if the chain does not fit into the budget.
    """
    draw = random.Random(seed)
    value, chains = _chains(5, draw)
    solved = _solved_example(value, budget.tokenizer, draw)
    placement = draw.getrandbits(63)

    def build(lines: int) -> Example:
        text = _hide(chains, lines, random.Random(placement))
        return Example(
            id=f"vt-{number}",
            task="vt",
            context=f"{solved}\n" + _TASK.format(text=text),
            question=_QUESTION.format(value=value),
            answer_prefix=_ANSWER_PREFIX.format(count=HOPS + 1, value=value),
            references=tuple(chains[0]),
            max_new_tokens=TASKS["vt"].max_new_tokens,
        )

    _, estimates = budget.enough(repeat(f"{NOISE}\n"))
    example = budget.fill(build, estimates, least=HOPS + 1)
    return budget.with_needles(example, {text: name for name, text in chains[0].items()})


def _chains(
    letters: int, draw: random.Random, taken: str | None = None
) -> tuple[str, list[dict[str, str]]]:
    """Draw the value asked for and each chain: its variables in order, with their statements."""
    names = distinct(CHAINS * (HOPS + 1), lambda: random_letters(letters, draw), {"VAR"})
    values = distinct(CHAINS, lambda: str(draw.randrange(10_000, 99_999)), {taken or ""})
    chains = []
    for chain, value in enumerate(values):
        first, *others = names[chain * (HOPS + 1) : (chain + 1) * (HOPS + 1)]
        statements = {first: f"VAR {first} = {value}"}
        for source, name in zip([first, *others], others, strict=False):
            statements[name] = f"VAR {name} = VAR {source} "
        chains.append(statements)
    return values[0], chains


def _hide(chains: list[dict[str, str]], lines: int, draw: random.Random) -> str:
    """Insert each chain's statements, in order, between lines of noise."""
    text = [NOISE] * lines
    for chain in chains:
        positions = sorted(draw.sample(range(len(text)), len(chain)))
        for shift, (position, statement) in enumerate(zip(positions, chain.values(), strict=True)):
            text.insert(position + shift, statement)
    return "\n".join(text)


def _solved_example(asked: str, tokenizer: PromptTokenizer, draw: random.Random) -> str:
    """Generate a question of the same kind with its answer: the longest of at most 500 tokens."""
    value, chains = _chains(3, draw, taken=asked)
    placement = draw.getrandbits(63)

    def build(lines: int) -> str:
        text = _hide(chains, lines, random.Random(placement))
        prompt = _TASK + _QUESTION + _ANSWER_PREFIX
        return prompt.format(text=text, value=value, count=HOPS + 1)

    candidates = [build(lines) for lines in range(HOPS + 1, 40)]
    counts = tokenizer.token_counts(candidates)
    fitting = [
        text
        for text, count in zip(candidates, counts, strict=True)
        if count <= _SOLVED_EXAMPLE_TOKENS
    ]
    # RULER's scripts have the same minimum number of lines, even if they take more tokens.
    return f"{(fitting or candidates[:1])[-1]} {' '.join(chains[0])}\n"
