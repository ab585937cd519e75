"""Composed queries ranked under a benchmark's protocol; ties count against the query."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from freestyle.datasets.composed import ComposedQuery, ComposedSplit
from freestyle.transport.captions import Composer, Composition
from freestyle.transport.presets import Preset
from freestyle.transport.scorer import ComposedScorer, QueryBlocks
from freestyle.transport.sets import SetEncoder, Sets, ragged
from freestyle.transport.transition import medium_prompts

SAMPLE = 1000  # gallery photos over which blocks are standardised
ROWS = 32  # queries scored at a time
ROLES = ("desired", "preserved", "forbidden")
NEVER = np.inf  # rank of a target that is not ranked


@dataclass
class ComposedOutcome:
    """What one method did on Q queries.

    Attributes:
        ranks: Per query the sorted 1-based ranks of its targets; empty where they are not public.
        subset_ranks: Rank of the target within CIRR's group, or ``inf`` where there is none.
        top: Per query the first gallery positions, best first.
        subset_top: Per query its group's positions, best first.
    """

    ranks: list[np.ndarray]
    subset_ranks: np.ndarray
    top: list[np.ndarray]
    subset_top: list[np.ndarray] = field(default_factory=list)

    def recall(self, k: int) -> np.ndarray:
        """Whether each query finds a target among its first k, ``(Q,)`` of 0.0 and 1.0."""
        return np.array([float(len(r) and r[0] <= k) for r in self.ranks])

    def average_precision(self, k: int) -> np.ndarray:
        """AP@k of each query ``(Q,)``: ``sum P(i) rel(i) / min(targets, k)`` (CIRCO)."""
        found = []
        for ranks in self.ranks:
            hits = ranks[ranks <= k]
            precision = np.arange(1, len(hits) + 1) / hits
            found.append(precision.sum() / max(1, min(len(ranks), k)))
        return np.array(found)

    def metric(self, name: str) -> np.ndarray:
        """``R@5``, ``mAP@10`` or ``Rs@2`` of each query ``(Q,)``."""
        kind, k = name.split("@")
        if kind == "R":
            return self.recall(int(k))
        if kind == "mAP":
            return self.average_precision(int(k))
        return (self.subset_ranks <= int(k)).astype(float)


def metric_names(split: ComposedSplit) -> list[str]:
    """What a benchmark reports."""
    own = split.protocol
    return (
        [f"mAP@{k}" for k in own.map_at]
        + [f"R@{k}" for k in own.recall_at]
        + [f"Rs@{k}" for k in own.subset_recall_at]
    )


@dataclass
class Prepared:
    """A split, embedded: what any preset scores.

    Attributes:
        split: The split.
        gallery: Sets of its G pictures.
        queries: Blocks of its Q queries.
        compositions: What the composer wrote, by query id.
        finish_texts: Of :class:`~freestyle.transport.scorer.ComposedScorer`.
        weights: The weights' tag.
        encoder: What embedded it.
    """

    split: ComposedSplit
    gallery: Sets
    queries: QueryBlocks
    compositions: dict[str, Composition]
    finish_texts: Callable[[Tensor], Tensor]
    weights: str
    encoder: SetEncoder

    def scorer(self, preset: Preset, seed: int = 0) -> ComposedScorer:
        """A scorer with a seeded sample of this gallery."""
        return ComposedScorer(preset, self.finish_texts, sample_of(self.gallery, seed))


def sample_of(gallery: Sets, seed: int = 0) -> Sets:
    """At most 1,000 sets of a gallery, drawn by seed; the gallery itself if it is no larger."""
    if len(gallery) <= SAMPLE:
        return gallery
    rows = np.random.default_rng(seed).permutation(len(gallery))[:SAMPLE]
    return gallery.take(torch.from_numpy(np.sort(rows)))


def prepare(
    split: ComposedSplit, encoder: SetEncoder, composer: Composer, *, media: bool = False
) -> Prepared:
    """Compose captions, embed gallery, references and texts.

    Args:
        split: The split.
        encoder: Embeds pictures and texts.
        composer: Writes the captions.
        media: Whether the texts of the medium step are embedded too.

    Raises:
        UserError: If a picture cannot be read, or captions are missing.
    """
    compositions = composer.compose(split.queries)
    references = list(dict.fromkeys(query.reference for query in split.queries))
    place = {reference: row for row, reference in enumerate(references)}
    rows = torch.tensor([place[query.reference] for query in split.queries])
    written = [compositions[query.id] for query in split.queries]
    styles = [query.style for query in split.queries] if media else None
    return Prepared(
        split,
        encoder.photos(split.gallery),
        QueryBlocks(
            text_blocks(written, encoder, styles),
            encoder.queries(references).take(rows),
        ),
        compositions,
        encoder.finish_texts,
        encoder.model.encoder.weights_tag,
        encoder,
    )


def text_blocks(
    compositions: Sequence[Composition],
    encoder: SetEncoder,
    styles: Sequence[str] | None = None,
) -> dict[str, Sets]:
    """Sets of text embeddings by block; every different text is embedded once.

    Args:
        compositions: Of Q queries.
        encoder: Embeds texts.
        styles: Of their references, where the texts of the medium step are wanted.
    """
    fields = {
        "captions": [c.captions for c in compositions],
        "modification": [(c.modification,) for c in compositions],
        "reference-caption": [c.reference for c in compositions],
        "desired": [c.desired for c in compositions],
        "preserved": [c.preserved for c in compositions],
        "forbidden": [c.forbidden for c in compositions],
    }
    if styles is not None:
        known = [c.reference[0] if c.reference else c.captions[0] for c in compositions]
        prompts = [medium_prompts(text, style) for text, style in zip(known, styles, strict=True)]
        fields["as-photo"] = [(photo,) for photo, _ in prompts]
        fields["as-medium"] = [tuple(media) for _, media in prompts]
    roles = any(any(fields[name]) for name in ROLES)  # one may be empty for all queries
    rows = encoder.texts(
        different := list(
            dict.fromkeys(t for lists in fields.values() for own in lists for t in own)
        )
    )
    place = {text: row for row, text in enumerate(different)}
    return {
        name: ragged([rows[[place[t] for t in own]] for own in lists], encoder.width)
        for name, lists in fields.items()
        if any(lists) or name == "as-medium" or (name in ROLES and roles)
    }


def evaluate_composed(prepared: Prepared, preset: Preset, *, keep: int = 50) -> ComposedOutcome:
    """Rank every query by one preset.

    Args:
        prepared: From :func:`prepare`.
        preset: The method.
        keep: Length of the lists that are kept.
    """
    split, scorer = prepared.split, prepared.scorer(preset)
    place = split.position()
    outcome = ComposedOutcome([], np.full(len(split.queries), NEVER), [])
    for start in range(0, len(split.queries), ROWS):
        part = slice(start, min(start + ROWS, len(split.queries)))
        with torch.inference_mode():
            scores = scorer.score(prepared.queries.take(part), prepared.gallery)
        values = scores.double().numpy()
        for row, query in zip(values, split.queries[part], strict=True):
            _rank(row, query, place, split, outcome, keep)
    return outcome


def _rank(
    scores: np.ndarray,
    query: ComposedQuery,
    place: dict[str, int],
    split: ComposedSplit,
    outcome: ComposedOutcome,
    keep: int,
) -> None:
    scores = np.nan_to_num(scores, nan=-np.inf)
    targets = np.array([place[t] for t in query.targets], dtype=np.int64)
    if query.subset:
        members = np.array([place[m] for m in query.subset])
        outcome.subset_top.append(members[_order(scores[members], np.isin(members, targets))])
        if len(targets):
            own = scores[members]
            ranks = target_ranks(own, np.flatnonzero(np.isin(members, targets)))
            if len(ranks):
                outcome.subset_ranks[len(outcome.ranks)] = ranks[0]
    allowed = np.ones(len(scores), dtype=bool)
    if query.candidates:
        allowed = np.zeros(len(scores), dtype=bool)
        allowed[[place[c] for c in query.candidates]] = True
    if split.protocol.drop_reference and query.reference_id in place:
        allowed[place[query.reference_id]] = False
    columns = np.flatnonzero(allowed)
    relevant = np.isin(columns, targets)
    outcome.top.append(columns[_order(scores[columns], relevant, keep)])
    outcome.ranks.append(target_ranks(scores[columns], np.flatnonzero(relevant)))


def target_ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Sorted 1-based ranks of some positions; other positions with an equal score come first.

    >>> target_ranks(np.array([0.5, 0.9, 0.5, 0.1]), np.array([0, 3]))
    array([3, 4])
    """
    others = np.delete(scores, targets)
    own = np.sort(scores[targets])[::-1]
    ahead = np.array([(others >= score).sum() for score in own], dtype=np.int64)
    return ahead + np.arange(1, len(own) + 1)


def _order(scores: np.ndarray, relevant: np.ndarray, keep: int | None = None) -> np.ndarray:
    """Positions best first; of equal scores the relevant last, then by position."""
    order = np.lexsort((np.arange(len(scores)), relevant, -scores))
    return order[:keep]
