"""Patterns against their definitions, written as loops in Python."""

import math
from collections.abc import Iterable

import pytest
from prefill_layers import prefill_layer

from sah.attention.prefill.pattern import Pattern, PrefillLayer
from sah.patterns.block_top_k import BlockTopK
from sah.patterns.flexprefill import FlexPrefill
from sah.patterns.moba import MoBA
from sah.patterns.vertical_slash import VerticalSlash
from sah.patterns.xattention import XAttention

# Multiples of no block, of some and of all; shorter than a block; one token.
LENGTHS = (1, 7, 64, 150)

Row = list[float]


def rows_of(layer: PrefillLayer, head: int) -> tuple[list[Row], list[Row]]:
    """Queries of a head and keys of its key-value head."""
    group = head // layer.group_size
    return layer.query[0, head].double().tolist(), layer.key[0, group].double().tolist()


def dot(query: Row, key: Row) -> float:
    return sum(map(float.__mul__, query, key))


def logit(layer: PrefillLayer, query: Row, key: Row) -> float:
    product = dot(query, key) * layer.scaling
    cap = layer.softcap
    return product if cap is None else cap * math.tanh(product / cap)


def softmax(scores: Iterable[float]) -> Row:
    scores = list(scores)
    parts = [math.exp(score - max(scores)) for score in scores]
    return [part / sum(parts) for part in parts]


def attention(layer: PrefillLayer, head: int, last: int) -> dict[int, Row]:
    """Attention weights of the last queries over the keys that they see, by position."""
    queries, keys = rows_of(layer, head)
    return {
        number: softmax(logit(layer, queries[number], key) for key in keys[: number + 1])
        for number in range(max(0, layer.length - last), layer.length)
    }


def sums(weights: dict[int, Row], length: int) -> tuple[Row, Row]:
    """Sums by key, and by distance between query and key."""
    by_key, by_distance = [0.0] * length, [0.0] * length
    for query, row in weights.items():
        for key, weight in enumerate(row):
            by_key[key] += weight
            by_distance[query - key] += weight
    return by_key, by_distance


def highest(scores: Row, count: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))[:count]


def blocks_of(length: int, block: int) -> list[range]:
    return [range(start, min(length, start + block)) for start in range(0, length, block)]


def mean(rows: list[Row], places: Iterable[int]) -> Row:
    chosen = [rows[place] for place in places]
    return [sum(column) / len(chosen) for column in zip(*chosen, strict=True)]


def read_by(pattern: Pattern, layer: PrefillLayer, head: int) -> set[tuple[int, int]]:
    pairs = pattern.reads(layer).mask(layer.length)
    return set(map(tuple, pairs.expand(1, 4, -1, -1)[0, head].nonzero().tolist()))


def causal(pairs: Iterable[tuple[int, int]], length: int) -> set[tuple[int, int]]:
    """Without later keys, and with each query's own."""
    own = {(position, position) for position in range(length)}
    return {(query, key) for query, key in pairs if key <= query} | own


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("length", LENGTHS)
def test_vertical_slash_reads_the_columns_and_diagonals_with_most_attention(
    length: int, softcap: float | None
) -> None:
    pattern = VerticalSlash(verticals=9, slash_fraction=0.04, sinks=2, local=3, last_queries=20)
    layer = prefill_layer(length, softcap=softcap)
    for head in range(4):
        by_key, by_distance = sums(attention(layer, head, 20), length)
        first = [math.inf] * 3
        columns = highest(first[:2] + by_key[2:], min(9, length))
        count = min(length, max(3, math.ceil(0.04 * length)))
        distances = highest(first + by_distance[3:], count)
        expected = {(query, key) for query in range(length) for key in columns}
        for query in range(length):
            for distance in distances:
                if distance <= query:
                    block, key_block = query // 64 * 64, (query - distance) // 16 * 16
                    expected |= {
                        (block + n, key_block + m)
                        for n in range(min(64, length - block))
                        for m in range(min(16, length - key_block))
                    }
        assert read_by(pattern, layer, head) == causal(expected, length)


@pytest.mark.parametrize("budget", [{"blocks": 3}, {"fraction": 0.3}], ids=str)
@pytest.mark.parametrize("length", LENGTHS)
def test_block_top_k_reads_the_blocks_with_the_best_products_of_means(
    length: int, budget: dict[str, float]
) -> None:
    layer = prefill_layer(length)
    blocks = blocks_of(length, 16)
    for head in range(4):
        queries, keys = rows_of(layer, head)
        expected = set()
        for number, block in enumerate(blocks):
            seen = blocks[: number + 1]
            scores = [dot(mean(queries, block), mean(keys, other)) for other in seen]
            count = budget.get("blocks", math.ceil(0.3 * len(seen)))
            for chosen in highest(scores, int(count)):
                expected |= {(query, key) for query in block for key in blocks[chosen]}
        pattern = BlockTopK(**budget, block=16)
        assert read_by(pattern, layer, head) == causal(expected, length)


@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("length", LENGTHS)
def test_moba_reads_the_own_block_and_those_with_the_best_mean_key(
    length: int, top_k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sah.patterns.moba._CHUNK", 50)
    layer = prefill_layer(length)
    blocks = blocks_of(length, 16)
    for head in range(4):
        queries, keys = rows_of(layer, head)
        expected = set()
        for query in range(length):
            own = query // 16
            scores = [dot(queries[query], mean(keys, block)) for block in blocks[:own]]
            for chosen in (own, *highest(scores, top_k - 1)):
                expected |= {(query, key) for key in blocks[chosen]}
        assert read_by(MoBA(block=16, top_k=top_k), layer, head) == causal(expected, length)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("threshold", [0.5, 0.9])
@pytest.mark.parametrize("length", LENGTHS)
def test_xattention_reads_the_fewest_blocks_that_reach_the_threshold(
    length: int, threshold: float, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sah.patterns.xattention._CHUNK", 3)
    layer = prefill_layer(length, softcap=softcap)
    side, blocks = 4, blocks_of(length, 16)
    squares = math.ceil(length / side)
    for head in range(4):
        queries, keys = rows_of(layer, head)

        def antidiagonal(row: int, column: int, queries=queries, keys=keys) -> float:
            total = 0.0
            for offset in range(side):
                query, key = row * side + side - 1 - offset, column * side + offset
                if query < length and key < length:  # what is missing counts as 0
                    total += dot(queries[query], keys[key])
            return logit(layer, [total / side], [1.0])

        mass = [[0.0] * len(blocks) for _ in blocks]
        for row in range(squares):
            weights = softmax(antidiagonal(row, column) for column in range(row + 1))
            for column, weight in enumerate(weights):
                mass[row * side // 16][column * side // 16] += weight
        expected = set()
        for number, block in enumerate(blocks):
            row = mass[number]
            chosen = {0, number}
            for other in highest(row, len(blocks)):
                if sum(row[place] for place in chosen) >= threshold * sum(row):
                    break
                chosen.add(other)
            expected |= {(query, key) for query in block for one in chosen for key in blocks[one]}
        pattern = XAttention(threshold=threshold, stride=side, block=16)
        assert read_by(pattern, layer, head) == causal(expected, length)


@pytest.mark.parametrize("softcap", [None, 6.0])
@pytest.mark.parametrize(("gamma", "tau"), [(0.85, 0.16), (0.6, 0.0), (0.5, 1.0)])
@pytest.mark.parametrize("length", LENGTHS)
def test_flexprefill_reads_the_blocks_that_reach_gamma_by_the_pattern_of_the_head(
    length: int, gamma: float, tau: float, softcap: float | None
) -> None:
    layer = prefill_layer(length, softcap=softcap)
    blocks, pattern = (
        blocks_of(length, 16),
        FlexPrefill(gamma=gamma, tau=tau, min_budget=17, block=16),
    )
    kinds = set()
    for head in range(4):
        if length <= 32:
            expected = {(query, key) for query in range(length) for key in range(length)}
        else:
            aware, expected = flexprefill_blocks(layer, head, gamma, tau)
            kinds.add(aware)
            expected = {
                (query, key) for n, m in expected for query in blocks[n] for key in blocks[m]
            }
        assert read_by(pattern, layer, head) == causal(expected, length)
    if length == 150:  # some heads of each kind, where tau leaves a choice
        assert kinds == {0.16: {True, False}, 0.0: {False}, 1.0: {True}}[tau]


def flexprefill_blocks(
    layer: PrefillLayer, head: int, gamma: float, tau: float
) -> tuple[bool, set[tuple[int, int]]]:
    """Whether the head is query-aware, and its blocks of 16 with a least budget of 2."""
    length, blocks = layer.length, blocks_of(layer.length, 16)
    queries, keys = rows_of(layer, head)
    by_key, by_distance = (
        [one / 16 for one in part] for part in sums(attention(layer, head, 16), length)
    )
    vertical = [sum(by_key[key] for key in block) for block in blocks]
    # The shortest distances fill up what blocks of the others leave.
    slash = [sum(by_distance[length - 1 - place] for place in block) for block in reversed(blocks)]

    query = mean(queries, range(length - 16, length))
    estimate = softmax(logit(layer, query, mean(keys, block)) for block in blocks)
    divergence = 0.0
    for p, q in zip(estimate, vertical, strict=True):
        divergence += sum(one * math.log(2 * one / (p + q)) / 2 for one in (p, q) if one)
    aware = math.sqrt(max(0, divergence)) < tau

    def chosen(of_block: Row, of_token: Row) -> list[int]:
        count, reached = 1, 0.0
        for weight in sorted(of_token, reverse=True):
            reached += weight
            count += reached <= gamma
        budget = 2 if aware else min(len(blocks), max(2, count // 16 + 1))
        return highest([math.inf, *of_block[1:]], budget)

    found = {(n, m) for n in range(len(blocks)) for m in chosen(vertical, by_key)}
    found |= {(n, n - d) for n in range(len(blocks)) for d in chosen(slash, by_distance) if d <= n}
    if aware:
        shares = []
        for n, block in enumerate(blocks):
            pooled = mean(queries, block)
            row = softmax(logit(layer, pooled, mean(keys, other)) for other in blocks[: n + 1])
            shares += [(share, (n, m)) for m, share in enumerate(row)]
        reached = 0.0
        for share, pair in sorted(shares, reverse=True):
            reached += share
            if reached <= gamma * len(blocks):
                found.add(pair)
    return aware, found
