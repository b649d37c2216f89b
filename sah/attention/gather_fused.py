"""Fused kernels for gathering: they read selected rows in place instead of copying them first."""

# R rows of a matrix, M lists of N row numbers, D vector dimension

import warnings

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

with warnings.catch_warnings():
    # torch warns once per process that sparse matrices are in beta; trigger it here, unseen.
    warnings.simplefilter("ignore")
    torch.eye(1).to_sparse_csr()


def true_positions(flags: Bool[Tensor, " N"]) -> Int[Tensor, " M"]:
    """Return the positions of the true flags, on the CPU, by NumPy for its speed.

    Equal to

        flags.nonzero().squeeze(-1)
    """
    return torch.from_numpy(np.flatnonzero(flags.numpy()))


def products_with_rows(
    matrix: Float[Tensor, "R D"], rows: Int[Tensor, "M N"], query: Float[Tensor, "M D"]
) -> Float[Tensor, " MN"]:
    """Return the dot products of each query with its rows, on the CPU in float32.

    Equal to

        (matrix[rows] @ query.unsqueeze(-1)).flatten()
    """
    pattern = torch.sparse_csr_tensor(
        torch.arange(len(query) + 1) * rows.shape[1],
        rows.flatten(),
        query.new_zeros(rows.numel()),  # beta=0 ignores the values; only the pattern matters
        (len(query), len(matrix)),
        check_invariants=False,
    )
    products: Tensor = torch.sparse.sampled_addmm(pattern, query, matrix.T, beta=0.0).values()
    return products


def weighted_sum_of_rows(
    matrix: Float[Tensor, "R D"], rows: Int[Tensor, "M N"], weight: Float[Tensor, "M N"]
) -> Float[Tensor, "M D"]:
    """Sum each list of rows with its weights, on any device in float32.

    Equal to

        (weight.unsqueeze(1) @ matrix[rows]).squeeze(1)
    """
    return torch.nn.functional.embedding_bag(rows, matrix, per_sample_weights=weight, mode="sum")
