"""Graph walks, answered by searching the edges in the prompt."""

import re
from collections import Counter

import pytest

from sah.benchmarks.synthetic.graph_walks import GraphWalks
from sah.errors import ConfigurationError

EDGE = re.compile(r"([0-9a-f]{10}) -> ([0-9a-f]{10})")


def edges(example):
    """Parse the edges, which must be all of the text after the instructions."""
    text = example.context.split("Here is the graph to operate on:\n")[1]
    first, *lines = text.removesuffix("\n\n").split("\n")
    assert first == "The graph has the following edges:"
    return [EDGE.fullmatch(line).groups() for line in lines]


def solution(example):
    """Carry out the operation by its definition: distances by relaxing all edges, or a filter."""
    graph = edges(example)
    if found := re.search(r"Find the parents of node (\w+)\.", example.question):
        return {source for source, target in graph if target == found.group(1)}
    operation = r"Perform a BFS from node (\w+) and return only the nodes at exactly depth (\d+) "
    start, depth = re.search(operation, example.question).groups()
    distances = {start: 0}
    for distance in range(1, int(depth) + 1):
        for source, target in graph:
            if distances.get(source) == distance - 1:
                distances.setdefault(target, distance)
    return {node for node, distance in distances.items() if distance == int(depth)}


def line(nodes):
    return f"Final Answer: [{', '.join(nodes)}]"


def made(tiny, seed=0, **settings):
    benchmark = GraphWalks(**{"context_tokens": 2600, "samples": 5, **settings})
    return benchmark.examples(tiny.prompts, seed=seed)


@pytest.mark.parametrize(("context_tokens", "depth"), [(2000, 1), (2000, 2), (8000, 2), (5000, 3)])
def test_only_the_set_that_the_operation_results_in_is_right(
    tiny, prediction, context_tokens, depth
):
    benchmark = GraphWalks(context_tokens=context_tokens, samples=3, depth=depth)
    for seed in range(3):
        examples = benchmark.examples(tiny.prompts, seed=seed)
        assert [example.task for example in examples] == ["bfs"] * 3 + ["parents"] * 3
        for example in examples:

            def score(nodes, example=example):
                return benchmark.score_one(example, prediction(example.id, text=line(nodes))).score

            nodes = sorted(solution(example))
            assert score(nodes) == score(nodes[::-1]) == 1
            assert score(nodes[1:]) < 1
            assert score([*nodes, "0123456789"]) < 1


def test_no_answer_is_empty_and_their_sizes_differ(tiny):
    examples = made(tiny, samples=20, context_tokens=2000)
    sizes = {task: Counter() for task in ("bfs", "parents")}
    for example in examples:
        sizes[example.task][len(solution(example))] += 1
    assert set(sizes["parents"]) == {1, 2, 3, 4}
    assert set(sizes["bfs"]) <= {1, 2, 3, 4}
    assert len(sizes["bfs"]) > 1


def test_every_node_leads_to_two_others(tiny):
    for example in made(tiny):
        graph = edges(example)
        assert len(set(graph)) == len(graph)
        assert all(source != target for source, target in graph)
        targets = Counter(source for source, _ in graph)
        assert set(targets.values()) == {2}
        assert {target for _, target in graph} <= set(targets)
        # Grouped by source.
        sources = [source for source, _ in graph]
        assert sources[::2] == sources[1::2]


def test_less_than_two_nodes_of_the_budget_are_left(tiny):
    for context_tokens in (2000, 5000):
        for example in made(tiny, context_tokens=context_tokens):
            length = tiny.prompts.prompt_length(example) + example.max_new_tokens
            assert context_tokens - 4 * 30 < length <= context_tokens


def test_a_longer_context_keeps_question_and_answer(tiny):
    short, long = made(tiny), made(tiny, context_tokens=6000)
    for one, other in zip(short, long, strict=True):
        assert (one.question, one.references) == (other.question, other.references)
        assert len(edges(other)) > 2 * len(edges(one))


def test_a_sample_depends_only_on_its_number_and_the_seed(tiny):
    few = {item.id: item for item in made(tiny, samples=2)}
    many = {item.id: item for item in made(tiny, samples=4)}
    assert {name: many[name] for name in few} == few
    assert len({item.question for item in many.values()}) == 8


def test_the_edges_that_the_answer_depends_on_are_noted(tiny):
    for example in made(tiny):
        found = {needle["answer"] for needle in example.metadata["needles"]}
        if example.task == "parents":
            assert found == solution(example)
        else:
            assert found >= solution(example)
        for needle in example.metadata["needles"]:
            place = round(needle["depth"] * len(example.context))
            assert needle["answer"] in example.context[place - 1 : place + 26]


def test_the_answer_always_fits_into_its_limit(tiny):
    for example in made(tiny, depth=4, context_tokens=8000):
        assert len(tiny.prompts.tokenizer(example.references[0]).input_ids) < example.max_new_tokens


def test_a_graph_that_does_not_fit_is_refused(tiny):
    for settings in ({"context_tokens": 1300}, {"depth": 8}):
        with pytest.raises(ConfigurationError, match=r"context_tokens=\d+ is too small.*bfs"):
            made(tiny, **settings)


@pytest.mark.parametrize("depth", [0, 9])
def test_a_depth_out_of_range_is_refused(depth):
    with pytest.raises(ConfigurationError, match=rf"depth must be from 1 to 8, got {depth}"):
        GraphWalks(depth=depth)
