"""What evaluation and training read: a gallery of photos and the queries of each style.

Both classes hold paths, captions and integers, never pixels, and check themselves on creation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

from freestyle.errors import UserError

Relevance = Literal["instance", "class"]
_Item = TypeVar("_Item")


@dataclass(frozen=True, eq=False)
class QuerySet:
    """The queries of one style.

    Attributes:
        style: Name of the style, ``"text"`` for captions.
        sources: Q picture paths, or Q captions where the style is ``"text"``.
        groups: (Q,) int64; the relevant photos are those with the same group.
        ids: Q record ids: paths relative to the style's folder, without extension.
    """

    style: str
    sources: Sequence[Path] | Sequence[str]
    groups: np.ndarray
    ids: Sequence[str]

    def __post_init__(self) -> None:
        _check_groups(f"queries of {self.style}", self.groups, len(self.sources), len(self.ids))

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def is_text(self) -> bool:
        """Whether the sources are captions instead of picture paths."""
        return self.style == "text"

    def subset(self, indices: Sequence[int] | np.ndarray) -> QuerySet:
        """Return the queries at these positions, in this order."""
        indices = np.asarray(indices, dtype=np.int64)
        return QuerySet(
            self.style, take(self.sources, indices), self.groups[indices], take(self.ids, indices)
        )


@dataclass(frozen=True, eq=False)
class RetrievalSplit:
    """One split of a data set: the gallery and the queries of every opened style.

    With ``"instance"`` relevance, the one relevant photo of query i, in every style, is photo i,
    so that the styles pair by position. With ``"class"`` relevance, all photos of the query's
    class are relevant and the styles are independent lists.

    Attributes:
        dataset: Name of the data set, as it appears in reports.
        split: Name of the split.
        root: Folder of the data set.
        gallery: G photo paths.
        gallery_ids: G record ids: paths relative to the photo folder, without extension.
        gallery_groups: (G,) int64; ``arange(G)`` for instance-level relevance.
        queries: The query set of each style, by name.
        relevance: ``"instance"`` or ``"class"``.
    """

    dataset: str
    split: str
    root: Path
    gallery: Sequence[Path]
    gallery_ids: Sequence[str]
    gallery_groups: np.ndarray
    queries: dict[str, QuerySet] = field(default_factory=dict)
    relevance: Relevance = "instance"

    def __post_init__(self) -> None:
        if self.relevance not in ("instance", "class"):
            raise ValueError(f"relevance is 'instance' or 'class', not {self.relevance!r}")
        _check_groups("gallery", self.gallery_groups, len(self.gallery), len(self.gallery_ids))
        if not len(self.gallery):
            raise ValueError("a split needs at least one photo")
        aligned = np.arange(len(self.gallery), dtype=np.int64)
        if self.relevance == "instance" and not np.array_equal(self.gallery_groups, aligned):
            raise ValueError("instance-level gallery_groups must be 0, 1, ..., G - 1")
        for style, queries in self.queries.items():
            if style != queries.style:
                raise ValueError(f"queries[{style!r}] holds the style {queries.style!r}")
            if not np.isin(queries.groups, self.gallery_groups).all():
                raise ValueError(f"queries of {style} without a relevant photo in the gallery")

    @property
    def n_gallery(self) -> int:
        """Number of photos."""
        return len(self.gallery)

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of the opened styles."""
        return tuple(self.queries)

    def aligned(self, styles: Sequence[str]) -> list[QuerySet]:
        """Return the query sets of these styles, query i of each asking for the same photo.

        Raises:
            UserError: A style was not opened, or the styles cannot be paired by position.
        """
        for style in styles:
            if style not in self.queries:
                raise UserError(
                    f"Style {style!r} of the joint query {'+'.join(styles)!r} is not in this split "
                    f"of {self.dataset}: choose from {', '.join(self.queries) or 'no styles'}."
                )
        if self.relevance == "class":
            raise UserError(
                f"Joint queries such as {'+'.join(styles)!r} need one photo per query, but "
                f"{self.dataset} was opened by class: open it with relevance 'instance'."
            )
        chosen = [self.queries[style] for style in styles]
        for other in chosen[1:]:
            if not np.array_equal(chosen[0].groups, other.groups):
                raise UserError(
                    f"The queries of {chosen[0].style!r} and {other.style!r} in {self.dataset} ask "
                    "for different photos by position: list both styles for the same records."
                )
        return chosen

    def subset(self, indices: Sequence[int] | np.ndarray) -> RetrievalSplit:
        """Keep the photos at these positions, in this order, and the queries that ask for them.

        Instance-level groups are renumbered and queries follow the photos' order; class-level
        groups stay, and queries whose class has no photo left are dropped.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if len(np.unique(indices)) != len(indices):
            raise ValueError("subset needs distinct positions")
        groups = self.gallery_groups[indices]
        queries = {}
        for style, every in self.queries.items():
            if self.relevance == "class":
                queries[style] = every.subset(np.flatnonzero(np.isin(every.groups, groups)))
                continue
            new = np.full(self.n_gallery, -1, dtype=np.int64)
            new[indices] = np.arange(len(indices))
            positions = new[every.groups]
            order = np.argsort(positions, kind="stable")
            order = order[positions[order] >= 0]
            kept = every.subset(order)
            queries[style] = QuerySet(style, kept.sources, positions[order], kept.ids)
        if self.relevance == "instance":
            groups = np.arange(len(indices), dtype=np.int64)
        return RetrievalSplit(
            dataset=self.dataset,
            split=self.split,
            root=self.root,
            gallery=take(self.gallery, indices),
            gallery_ids=take(self.gallery_ids, indices),
            gallery_groups=groups,
            queries=queries,
            relevance=self.relevance,
        )


def take(items: Sequence[_Item], indices: np.ndarray) -> Sequence[_Item]:
    """Return the items at these positions; compact sequences stay compact."""
    if hasattr(items, "take"):
        return items.take(indices)
    return [items[index] for index in indices.tolist()]


def _check_groups(what: str, groups: np.ndarray, *lengths: int) -> None:
    if not isinstance(groups, np.ndarray) or groups.dtype != np.int64 or groups.ndim != 1:
        raise ValueError(f"groups of the {what} must be a one-dimensional int64 array")
    if any(length != len(groups) for length in lengths):
        raise ValueError(f"{what}: sources, groups and ids differ in length")
