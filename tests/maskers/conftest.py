"""Attention problems for maskers, large enough for their configured parameters."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

import hydra_plugins.sah.config  # noqa: F401
from sah.attention import AttentionInputs, AttentionMask, Masker, Visibility

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.fixture(scope="session")
def make_inputs() -> Callable[..., AttentionInputs]:
    """Return random queries, keys and values; causal, with `padding[b]` invisible keys on the left.

    `other_rows` changes every row but the first.
    """

    def make(
        *,
        heads: int = 4,
        groups: int = 2,
        queries: int = 1,
        keys: int = 200,
        dim: int = 16,
        padding: Sequence[int] = (0,),
        seed: int = 0,
        run_seed: int = 0,
        other_rows: int = 0,
    ) -> AttentionInputs:
        def normal(*shape: int, kind: int) -> Tensor:
            rows = []
            for row in range(len(padding)):
                generator = torch.Generator().manual_seed(
                    1000 * seed + 100 * kind + 10 * row + (other_rows if row else 0)
                )
                rows.append(torch.randn(*shape, generator=generator))
            return torch.stack(rows)

        position = torch.arange(keys)
        causal = position <= torch.arange(keys - queries, keys)[:, None]
        real = position >= torch.tensor(padding)[:, None, None, None]
        return AttentionInputs(
            # Peaked, so that a few keys matter and most do not.
            query=3 * normal(heads, queries, dim, kind=0),
            key=normal(groups, keys, dim, kind=1),
            value=normal(groups, keys, dim, kind=2),
            visibility=Visibility(causal & real),
            scaling=dim**-0.5,
            first_position=keys - queries,
            context_length=keys - queries,
            seed=run_seed,
        )

    return make


@pytest.fixture(scope="session")
def some_mask() -> Callable[[AttentionInputs], AttentionMask]:
    """Return a mask as earlier maskers may leave it: some keys of weight 1, some sampled."""

    def make(inputs: AttentionInputs) -> AttentionMask:
        generator = torch.Generator().manual_seed(7)
        noise = torch.rand(*inputs.query.shape[:3], inputs.key.shape[2], generator=generator)
        weight = 1 + 9 * torch.rand(noise.shape, generator=generator)
        mask = AttentionMask.empty(inputs).add(noise < 0.1)
        return mask.add((noise > 0.1) & (noise < 0.2), weight)

    return make


@pytest.fixture(scope="module", autouse=True)
def _calibrated(calibrated: None) -> None:
    """Provide the tiny model's calibration files; the problems have its shapes."""


@pytest.fixture(scope="session")
def configured_masker() -> Callable[..., Masker]:
    """Return the masker of a yaml in conf/masker with some parameters changed."""

    def make(name: str, **changes: object) -> Masker:
        config = OmegaConf.load(CONF / "masker" / f"{name}.yaml")
        root = OmegaConf.create({"model": {"name": "tiny"}})
        root.masker = OmegaConf.merge(config, changes)
        masker: Masker = instantiate(root.masker, _convert_="all")
        return masker

    return make
