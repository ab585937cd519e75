"""Slow references: full matrices and plain loops, written without looking at the fast code."""

import math

import numpy as np


def score_matrix(queries, gallery):
    """(Q, G) float32, each score summed exactly before rounding."""
    q = np.asarray(queries, dtype=np.float64)
    g = np.asarray(gallery, dtype=np.float64)
    return np.array([[np.float32(math.fsum(a * b)) for b in g] for a in q], dtype=np.float32)


def rank_of_first(scores, query_groups, gallery_groups):
    ranks = []
    for row, group in zip(scores, query_groups, strict=True):
        # Sort by score, and at equal score put the photos that are not relevant first.
        order = sorted(
            range(len(row)), key=lambda j: (-float(row[j]), gallery_groups[j] == group, j)
        )
        ranks.append(next(i for i, j in enumerate(order, 1) if gallery_groups[j] == group))
    return np.array(ranks)


def joined(matrices, rule):
    """Join full score matrices term by term, row by row."""
    rows = []
    for terms in zip(*(np.asarray(m, dtype=np.float64) for m in matrices), strict=True):
        if rule == "sum":
            rows.append(sum(terms))
        elif rule == "zscore":
            rows.append(sum((t - np.mean(t)) / np.std(t) for t in terms))
        elif rule == "max-softmax":
            rows.append(np.max([np.exp(t) / np.sum(np.exp(t)) for t in terms], axis=0))
        elif rule == "reciprocal-rank":
            rows.append(
                [
                    sum(1 / (60 + sum(float(o) >= float(t[j]) for o in t)) for t in terms)
                    for j in range(len(terms[0]))
                ]
            )
    return np.array(rows)


def average_precision(relevant, n_relevant, k):
    hits, total = 0, 0.0
    for i, good in enumerate(list(relevant)[:k], 1):
        if good:
            hits += 1
            total += hits / i
    return total / min(n_relevant, k)
