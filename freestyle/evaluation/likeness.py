"""What maps of a model are drawn from: places, neighbours, likeness of styles, drawn queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from freestyle.model import FreestyleRet


def tsne(points: np.ndarray, seed: int = 0) -> np.ndarray:
    """Places of points in the plane by t-SNE over cosine distances, begun at their PCA.

    One thread: sums of several threads differ in the last bit, which t-SNE makes large.

    Args:
        points: ``(N, E)``, N at least 5.
        seed: The same points and seed give the same places.

    Returns:
        ``(N, 2)`` float32.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(30.0, (len(points) - 1) / 3)
    method = TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=seed, n_jobs=1)
    with threadpool_limits(1):
        return method.fit_transform(np.asarray(points, dtype=np.float32))


def neighbour_share(points: np.ndarray, labels: np.ndarray, k: int = 10) -> float:
    """How many of a point's k nearest others, by cosine, carry its label: the mean share.

    Args:
        points: ``(N, E)``.
        labels: ``(N,)``.
        k: At most N - 1 are taken.

    Returns:
        In [0, 1]. It is a number of the embeddings, not of their map.
    """
    rows = np.asarray(points, dtype=np.float32)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    k, shares = min(k, len(rows) - 1), []
    for start in range(0, len(rows), 1024):
        scores = rows[start : start + 1024] @ rows.T  # (n, N)
        own = np.arange(len(scores))
        scores[own, start + own] = -np.inf
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        same = labels[nearest] == labels[start : start + 1024, None]
        shares.append(same.mean(axis=1))
    return float(np.concatenate(shares).mean())


def style_similarity(
    means: np.ndarray, directions: np.ndarray, counts: Sequence[int]
) -> np.ndarray:
    """How alike what is made from styles is, from sums that need no vectors kept.

    Args:
        means: Mean vector of each style ``(S, D)``; nothing is removed from them.
        directions: Sum of each style's vectors divided by their lengths ``(S, D)``.
        counts: Vectors of each style ``(S,)``.

    Returns:
        ``(S, S)``: cosine of the means of two styles; on the diagonal the mean cosine of two
        different vectors of one style (1 where there is only one).
    """
    lengths = np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    similarity = (means / lengths) @ (means / lengths).T
    for i, count in enumerate(counts):
        pairs = count * (count - 1)
        similarity[i, i] = (directions[i] @ directions[i] - count) / pairs if pairs else 1.0
    return similarity


def similarity_of(
    make: Callable[[Tensor], Tensor], codes: dict[str, Tensor], model: FreestyleRet
) -> np.ndarray:
    """:func:`style_similarity` of what ``make`` turns style codes into, batch by batch."""
    means, directions, counts = [], [], []
    with torch.inference_mode():
        for rows in codes.values():
            total, units = 0.0, 0.0
            for batch in rows.split(256):
                made = make(batch.to(model.device).float()).double()
                total = total + made.sum(dim=0).cpu().numpy()
                units = units + torch.nn.functional.normalize(made, dim=1).sum(dim=0).cpu().numpy()
            means.append(total / len(rows))
            directions.append(units)
            counts.append(len(rows))
    return style_similarity(np.array(means), np.array(directions), counts)


def draw_queries(
    before: dict[str, np.ndarray], after: dict[str, np.ndarray], each: int, seed: int
) -> list[tuple[str, int, bool]]:
    """Queries that only one method finds first, drawn with a seed, the styles taking turns.

    Args:
        before: The control's ranks by style.
        after: The model's.
        each: At most so many wins, and so many losses.
        seed: Of the draws.

    Returns:
        Style, row, and whether the model won; wins first.
    """
    random = np.random.default_rng(seed)
    picked = []
    for won in (True, False):
        styles = random.permutation(list(before)).tolist()
        rows = {
            s: random.permutation(np.flatnonzero(only_first(before, after, s, won))) for s in styles
        }
        turns = [(i, s) for i in range(each) for s in styles if i < len(rows[s])]
        picked += [(s, int(rows[s][i]), won) for i, s in turns[:each]]
    return picked


def only_first(before: dict, after: dict, style: str, won: bool) -> np.ndarray:
    """Which queries of a style only the model (``won``), or only the control, finds first."""
    first, other = (after, before) if won else (before, after)
    return (first[style] == 1) & (other[style] > 1)
