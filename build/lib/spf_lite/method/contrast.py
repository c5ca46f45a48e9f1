r"""The directions in which complete texts differ from base texts: where low-rank factors of keys and values start.

A word enters the UNet through the keys and values of cross-attention, :math:`W h + B A h` with the text encoder's
hidden states h. If A is random, B learns from all words alike, and only slow training separates the target's word from
the others: its hidden states share most of their variance with those of every other word. So the rows a of A start
at the directions of largest contrast,

.. math:: a = \arg\max_a \frac{a^\top S_\Delta\, a}{a^\top S_0\, a}

with the covariance :math:`S_0` of the hidden states of base texts, and the second moments :math:`S_\Delta` of what the
target adds: its own hidden states less the mean of :math:`S_0`, and the differences of aligned tokens, PAD tokens among
them. This is a generalised eigenvalue problem, whose eigenvalues :math:`\lambda` say how far the target stands out.
Along the first row the hidden states of base texts have variance 1. The others are scaled by
:math:`(\lambda - 1) / (\lambda_1 - 1)`, so that a direction in which the target does not stand out is left alone.

Ours, not the paper's. Kin to the closed-form edits of keys and values in ROME (Meng et al. 2022, arXiv 2202.05262) and
Perfusion (Tewel et al. 2023, arXiv 2305.01644). In the book: :doc:`/06-dual-path`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from spf_lite.data.batch import Item

#: Added to the diagonal of the covariance, as a share of its mean: directions in which base texts hardly vary are
#: directions of rounding.
RIDGE = 1e-3


#: Rows that keys and values read of an encoded text, and which of them are read, as
#: :meth:`spf_lite.models.backbones.architecture.Architecture.projected_text` gives them.
Projection = Callable[[Tensor], tuple[Tensor, Tensor]]


def _as_it_is(text: Tensor) -> tuple[Tensor, Tensor]:
    return text, torch.ones(len(text), dtype=torch.bool)


def contrast_directions(items: Sequence[Item], empty: Tensor, rank: int, project: Projection = _as_it_is) -> Tensor:
    """Rows for A, of falling contrast, (rank, width).

    Args:
        items: whose base and complete texts are compared.
        empty: the empty text, encoded, (R, width); it counts as a base text.
        rank: how many rows; at most the width.
        project: from an encoded text to the hidden states that keys and values read.

    Raises:
        ValueError: if there are no items, or more rows are asked for than the text encoder is wide.
    """
    if not items:
        raise ValueError("no texts to compare")
    distinct = {item.pair.base_text: item.base for item in items}.values()
    base = torch.cat([_read(project, text) for text in (*distinct, empty)]).double()
    if rank > base.shape[1]:
        raise ValueError(f"rank={rank}: the hidden states have only {base.shape[1]} dimensions")
    mean = base.mean(dim=0)
    covariance = torch.cov(base.T, correction=0)
    covariance += RIDGE * covariance.diagonal().mean() * torch.eye(len(mean), dtype=torch.float64)
    added = torch.cat([_added(item, mean, project) for item in items])
    root = torch.linalg.cholesky(covariance)  # S_0 = R R^T turns the problem into an ordinary one
    whitened = torch.linalg.solve_triangular(root, added.T, upper=False)
    values, vectors = torch.linalg.eigh(whitened @ whitened.T / len(added))
    values, vectors = values.flip(0)[:rank], vectors.flip(1)[:, :rank]
    rows: Tensor = torch.linalg.solve_triangular(root.T, vectors, upper=True).T
    stands_out = (values - 1).clamp(min=0)
    scaled: Tensor = rows * (stands_out / stands_out[0].clamp(min=1e-9))[:, None]
    return scaled.float()


def _read(project: Projection, text: Tensor) -> Tensor:
    """The hidden states that are read of a text, (tokens, width)."""
    rows, read = project(text)
    return rows[read]


def _added(item: Item, mean: Tensor, project: Projection) -> Tensor:
    """What the target adds to the hidden states of one text, (tokens, width)."""
    base, complete = (project(text)[0].double() for text in (item.base, item.complete))
    pairs = torch.tensor(item.pair.alignment)
    moved = complete[pairs[:, 1]] - base[pairs[:, 0]]
    own = complete[list(item.pair.target.tokens)] - mean
    return torch.cat([own, moved[moved.norm(dim=1) > 1e-6]])
