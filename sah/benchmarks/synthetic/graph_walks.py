"""Graph walks over an edge list: breadth-first search and parents of a node.

The rules, the prompt and the score are those of OpenAI's data set (openai/graphwalks on the Hub,
MIT, as of February 2026): the edges of a directed graph, whose nodes are ten hexadecimal
digits, grouped by source; nodes all have equally many outgoing edges; the answer is a set of nodes,
and its F1 the score. Deviations:
- The graph fills the budget, every node has two outgoing edges, and its names are random; theirs
  has one to four, and the same names in each prompt (the MD5 of 0, 1, …), in their order.
- The answer depends on the sample alone, so that a longer context adds only edges that do not
  change it. All searches have the depth `depth`, and each depth has at least one node and at most
  twice as many as the depth before. A node has one to four parents. Their sets may be empty, or
  have thousands of nodes.
- No edge occurs twice, and none leads from a node to itself.
- The model is told to return the set at once, as in an earlier version of their prompt. The
  present one asks for reasoning first, which the answer limit has no room for.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import ClassVar

from sah.benchmarks.generated import Generate, GeneratedBenchmark
from sah.benchmarks.prompt_budget import Budget
from sah.benchmarks.scorers import node_set_f1
from sah.benchmarks.scoring import Task
from sah.benchmarks.synthetic.graph_walks_prompt import QUESTION, TASK_TEXT
from sah.errors import ConfigurationError
from sah.types import Example

_TASK = Task(max_new_tokens=128, scorer=node_set_f1)
# The template and the end of the answer take tokens too.
_SPARE_TOKENS = 16
_EDGES_PER_NODE = 2
# A node needs as many others to lead to, besides itself and the one whose parents are asked for.
_FEWEST_NODES = _EDGES_PER_NODE + 2
_MOST_PARENTS = 4
_DEEPEST = 8
# Share of the edges of a search that lead to a node already found.
_KNOWN_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class GraphWalks(GeneratedBenchmark):
    """Breadth-first search and parents in a graph that fills the budget."""

    name: str = "graph_walks"
    depth: int = 2
    """Depth of the breadth-first search, in edges."""

    title: ClassVar[str] = "graph walks, generated; rules of openai/graphwalks"
    licence: ClassVar[str] = "rules MIT"
    tasks: ClassVar = {"bfs": _TASK, "parents": _TASK}

    def __post_init__(self) -> None:
        """Also check the depth."""
        super().__post_init__()
        if not 1 <= self.depth <= _DEEPEST:
            raise ConfigurationError(
                f"{self.name}: benchmark.depth must be from 1 to {_DEEPEST}, got {self.depth}; the "
                "answer may double with each step"
            )

    def generator(self, task: str, seed: int) -> Generate:
        """Return the generator of a task."""
        return partial(_example, task, self.depth)


@dataclass(frozen=True, kw_only=True)
class _Walk:
    """An operation, its answer, and the edges that the answer depends on."""

    operation: str
    answer: Sequence[str]
    edges: Mapping[str, Sequence[str]]
    """Targets by source. Further targets of a source do not change the answer."""
    nodes: Sequence[str]
    closed: str | None = None
    """The node that no other edge may lead to."""


def _example(task: str, depth: int, number: int, budget: Budget, seed: int) -> Example:
    """Generate one sample: an operation, and the largest graph around it that fits.

    Raises:
        ConfigurationError: if the edges that the answer depends on do not fit into the budget.
    """
    draw = random.Random(seed)
    names = _names(draw)
    walk = _search(depth, names, draw) if task == "bfs" else _parents(names, draw)
    sources = (f"{name} -> {name}\n" * _EDGES_PER_NODE for name in chain(walk.nodes, names))
    blocks, estimates = budget.enough(sources)
    nodes = [block.partition(" ")[0] for block in blocks]
    placement = draw.getrandbits(63)
    reference = f"Final Answer: [{', '.join(sorted(walk.answer))}]"
    (answer_tokens,) = budget.counts.of([reference])

    def build(count: int) -> Example:
        return Example(
            id=f"{task}-{number}",
            task=task,
            context=TASK_TEXT.format(
                edges="\n".join(_edges(walk, nodes[:count], random.Random(placement)))
            ),
            question=QUESTION.format(operation=walk.operation),
            references=(reference,),
            max_new_tokens=max(_TASK.max_new_tokens, answer_tokens + _SPARE_TOKENS),
        )

    example = budget.fill(build, estimates, least=max(len(walk.nodes), _FEWEST_NODES))
    needles = {
        _edge(source, target): target if task == "bfs" else source
        for source, targets in walk.edges.items()
        for target in targets
    }
    return budget.with_needles(example, needles)


def _names(draw: random.Random) -> Iterator[str]:
    """Yield different names endlessly."""
    used = set()
    while True:
        name = f"{draw.getrandbits(40):010x}"
        if name not in used:
            used.add(name)
            yield name


def _search(depth: int, names: Iterator[str], draw: random.Random) -> _Walk:
    """Draw all edges that a breadth-first search follows; each depth has a new node."""
    start = next(names)
    reached, frontier = [start], [start]
    edges: dict[str, list[str]] = {}
    for _ in range(depth):
        found: list[str] = []
        for node in frontier:
            targets = edges[node] = []
            while len(targets) < _EDGES_PER_NODE:
                known = [name for name in reached if name != node and name not in targets]
                if found and known and draw.random() < _KNOWN_SHARE:
                    targets.append(draw.choice(known))
                else:
                    targets.append(next(names))
                    found.append(targets[-1])
                    reached.append(targets[-1])
        frontier = found
    return _Walk(
        operation=(
            f"Perform a BFS from node {start} and return only the nodes at exactly depth {depth} "
            "(not nodes at intermediate depths)."
        ),
        answer=frontier,
        edges=edges,
        nodes=reached,
    )


def _parents(names: Iterator[str], draw: random.Random) -> _Walk:
    """Draw a node and its parents, whose other edges are free."""
    child, *parents = islice(names, 1 + draw.randint(1, _MOST_PARENTS))
    return _Walk(
        operation=f"Find the parents of node {child}.",
        answer=parents,
        edges={parent: [child] for parent in parents},
        nodes=[child, *parents],
        closed=child,
    )


def _edges(walk: _Walk, nodes: Sequence[str], draw: random.Random) -> Iterator[str]:
    """Yield the edges of each node, in random order of the nodes."""
    for source in draw.sample(nodes, len(nodes)):
        targets = list(walk.edges.get(source, ()))
        while len(targets) < _EDGES_PER_NODE:
            target = draw.choice(nodes)
            if target not in (source, walk.closed, *targets):
                targets.append(target)
        draw.shuffle(targets)
        yield from (_edge(source, target) for target in targets)


def _edge(source: str, target: str) -> str:
    return f"{source} -> {target}"
