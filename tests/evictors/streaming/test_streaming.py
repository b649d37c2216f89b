"""SimLayerKV and DuoAttention: all keys, or the first and the last ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sah.attention.eviction.context_layer import ContextLayer
from sah.content import digest
from sah.errors import ConfigurationError
from sah.evictors.streaming.duo_attention import DuoAttention
from sah.evictors.streaming.simlayerkv import SimLayerKV

Layers = Callable[..., list[ContextLayer]]
Make = Callable[..., Any]


def test_simlayerkv_decides_by_the_last_queries_attention_to_first_and_recent_keys(
    context_layers: Layers,
) -> None:
    layer = context_layers(200)[1]
    attention = layer.window_attention(3)[0].mean((0, 1))
    share = (attention[:2].sum() + attention[-50:].sum()).item()
    ends = [*range(2), *range(150, 200)]
    for threshold, kept in ((share - 0.01, ends), (share + 0.01, list(range(200)))):
        evictor = SimLayerKV(threshold=threshold, sinks=2, recent=50, window=3)
        for head in evictor.at_context(layer)[0]:
            assert head.nonzero().flatten().tolist() == kept


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    file = tmp_path / "full_attention_heads.tsv"
    file.write_text("0.9\t-0.5\n1.5\t0.3\n", encoding="utf-8")
    return file


def test_duo_attention_streams_in_the_heads_with_the_lowest_scores(
    scores: Path, made_layer: Make
) -> None:
    evictor = DuoAttention(heads=str(scores), sinks=1, recent=2)
    kept = [
        evictor.at_context(made_layer(torch.zeros(2, 6, 1), layer_idx=number, layers=2))[0]
        for number in range(2)
    ]
    every, ends = [True] * 6, [True, False, False, False, True, True]
    assert [alive.tolist() for alive in kept] == [[every, ends], [every, ends]]


@pytest.mark.parametrize(("share", "streaming"), [(0.0, 0), (0.25, 1), (0.75, 3), (1.0, 4)])
def test_duo_attention_streams_in_the_asked_share_of_all_heads(
    share: float, streaming: int, scores: Path, made_layer: Make
) -> None:
    evictor = DuoAttention(heads=str(scores), streaming=share, sinks=1, recent=1)
    alive = [
        evictor.at_context(made_layer(torch.zeros(2, 6, 1), layer_idx=number, layers=2))
        for number in range(2)
    ]
    assert (torch.cat(alive).sum(-1) == 2).sum() == streaming


def test_duo_attention_refuses_the_scores_of_another_model(scores: Path, made_layer: Make) -> None:
    layer = made_layer(torch.zeros(2, 6, 1), layers=3)
    with pytest.raises(ConfigurationError, match="2 layers of 2 heads, but the model has 3 of 2"):
        DuoAttention(heads=str(scores)).at_context(layer)


def test_duo_attention_refuses_a_file_that_changed_since_it_was_composed(
    scores: Path, composed: Make
) -> None:
    config = composed(
        "sparse_attention=custom",
        "+evictor@sparse_attention.evict.duo=duo_attention",
        f"sparse_attention.evict.duo.heads={scores}",
    )
    content = dict(config.evict.duo.content)
    assert content == {"heads": digest(scores)}
    DuoAttention(heads=str(scores), content=content)
    scores.write_text("0\t1\n1\t0.25\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has changed since the experiment was composed"):
        DuoAttention(heads=str(scores), content=content)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.5\tx\n", "is not a table of numbers: could not convert string to float: 'x'"),
        ("0.5\t1\n0.5\n", "the same number of finite values in each row"),
        ("nan\t1\n", "the same number of finite values in each row"),
        ("", "the same number of finite values in each row"),
    ],
)
def test_duo_attention_refuses_a_file_of_other_content(
    text: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "heads.tsv").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        DuoAttention(heads=str(tmp_path / "heads.tsv"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: SimLayerKV(threshold=1.2), r"threshold must be in \[0, 1\], got 1.2"),
        (lambda: SimLayerKV(threshold=0.5, recent=0), "recent must be at least 1, got 0"),
        (lambda: DuoAttention(heads="no.tsv"), "there is no file no.tsv"),
        (lambda: DuoAttention(heads="no.tsv", streaming=2.0), r"streaming must be in \[0, 1\]"),
    ],
)
def test_an_invalid_evictor_is_refused(make: Callable[[], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
