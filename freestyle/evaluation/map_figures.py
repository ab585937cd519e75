"""The figures of ``freestyle figures``: all drawn from one measurement, each told in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from freestyle.evaluation import likeness, maps
from freestyle.evaluation.cases import case_grid
from freestyle.evaluation.command import picture_styles
from freestyle.evaluation.drawing import save_png
from freestyle.evaluation.embed import Embedder
from freestyle.evaluation.metrics import recall_at, recall_at_gallery_size
from freestyle.evaluation.models import Evaluation, case_of
from freestyle.model import FreestyleRet

CONTROL, BEFORE = "zero-shot", "zero-shot (frozen encoder)"
POINTS = 6000  # at most so many on a map
EACH = 3  # wins, and losses
KEYS = ("style", "group")  # what maps are coloured by


class NothingToDraw(Exception):
    """Why a figure is left out, as the end of a sentence."""


@dataclass
class Measured:
    """What all figures are drawn from.

    Attributes:
        model: The trained model.
        name: Its name in the figures.
        embedder: Both variants, ``zero-shot`` first.
        evaluation: Their embeddings and ranks.
        codes: Style codes of the picture queries by style, where the model reads them.
        unseen: Picture styles it was not trained on.
        groups: Group of a concept by its record's stem; may be empty.
        seed: Of maps and draws.
    """

    model: FreestyleRet
    name: str
    embedder: Embedder
    evaluation: Evaluation
    codes: dict[str, Tensor]
    unseen: list[str]
    groups: dict[str, str]
    seed: int = 0

    @property
    def split(self) -> Any:
        """The split that was embedded."""
        return self.evaluation.embeddings.split

    @property
    def pictures(self) -> list[str]:
        """Picture styles in their order."""
        return picture_styles(list(self.split.queries))

    def ranks(self, styles: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """By method, the control first, and style."""
        outcomes = self.evaluation.outcomes
        return {m: {s: outcomes[m][s].ranks.values for s in styles} for m in outcomes}

    def title(self, what: str) -> str:
        """A headline that says what was measured."""
        return f"{what}: {self.split.dataset}, {self.split.split}"


def embedding_map(found: Measured, path: Path) -> str:
    """Queries of all styles and photos, before and after."""
    embeddings, split = found.evaluation.embeddings, found.split
    width = found.embedder.encoder.embed_dim  # the calibration's columns follow
    photos = [embeddings.plain_photos(m) for m in (CONTROL, found.name)]
    sets = [(maps.PHOTO, split.gallery_ids, *photos)]
    for style, queries in split.queries.items():
        both = [embeddings.queries[m][style][:, :width] for m in (CONTROL, found.name)]
        sets.append((style, queries.ids, *both))
    kinds, stems, before, after = [], [], [], []
    for kind, ids, old, new in sets:  # the same seed: the same records of every style
        drawn = np.random.default_rng(found.seed).permutation(len(ids))[: POINTS // len(sets)]
        rows = np.sort(drawn)
        kinds += [kind] * len(rows)
        stems += [ids[i] for i in rows]
        before.append(old[rows].float().cpu())
        after.append(new[rows].float().cpu())
    if len(kinds) < 5:
        raise NothingToDraw(f"a map of {len(kinds)} points says nothing, give a larger --split")
    labels = [np.array(kinds)]
    if any(stem in found.groups for stem in stems):
        labels.append(np.array([found.groups.get(stem, maps.OTHER) for stem in stems]))
    panels = {BEFORE: torch.cat(before).numpy(), found.name: torch.cat(after).numpy()}
    say(f"Placing {len(kinds):,} points by t-SNE, before and after")
    shares = {p: [likeness.neighbour_share(x, own) for own in labels] for p, x in panels.items()}
    notes = {
        p: [f"of 10 nearest points, {s:.0%} of the same {w}" for s, w in zip(v, KEYS, strict=False)]
        for p, v in shares.items()
    }
    figure = maps.draw_embedding_map(
        {panel: likeness.tsne(points, found.seed) for panel, points in panels.items()},
        labels[0],
        groups=labels[1] if len(labels) > 1 else None,
        unseen=found.unseen,
        notes=notes,
        title=found.title("Where queries and photos lie"),
    )
    save_png(figure, path)
    told = [
        f"same {what} {old:.0%} -> {new:.0%}"
        for what, old, new in zip(KEYS, *shares.values(), strict=False)
    ]
    return "of 10 nearest points, " + ", ".join(told)


def style_space(found: Measured, path: Path) -> str:
    """Style codes on two axes, and which bases each style has."""
    if not found.codes:
        raise NothingToDraw("the model reads no style")
    space = found.model.space
    bases = space.bases.float().cpu().numpy()  # (K, d)
    embedded, weights = {}, []
    for style, codes in found.codes.items():
        codes = codes.to(space.bases.device).float()
        embedded[style] = space.embed(codes).cpu().numpy()
        weights.append(space.weights(codes).mean(dim=0).cpu().numpy())
    every = np.concatenate(list(embedded.values()))
    axes = np.eye(every.shape[1], dtype=np.float32)[:2]
    if space.axes is None:  # nothing was reduced: the axes are those of these codes
        axes = np.linalg.svd(every - every.mean(axis=0), full_matrices=False)[2][:2]
    if len(axes) < 2:
        raise NothingToDraw("the style space has one dimension, not two")
    spread = (every @ axes.T).var(axis=0) / every.var(axis=0).sum()
    figure = maps.draw_style_space(
        {style: values @ axes.T for style, values in embedded.items()},
        bases @ axes.T,
        np.array(weights),
        spread.tolist(),
        unseen=found.unseen,
        title=found.title("The style space"),
    )
    save_png(figure, path)
    told = [
        f"{style} {w.max():.2f} of base {w.argmax() + 1}"
        for style, w in zip(found.codes, weights, strict=True)
    ]
    return "mean weights, " + ", ".join(told)


def recall_curves(found: Measured, path: Path) -> str:
    """Recall against the length of the list."""
    ranks = found.ranks(list(found.split.queries))
    figure = maps.draw_recall_curves(
        ranks,
        found.split.n_gallery,
        unseen=found.unseen,
        title=found.title("Recall by length of the list"),
    )
    save_png(figure, path)
    return "R@1 in %, " + _before_after(ranks, lambda values: recall_at(values, 1))


def gallery_size(found: Measured, path: Path) -> str:
    """Recall against the size of the gallery."""
    if found.split.relevance == "class":
        raise NothingToDraw("queries by class have many right photos, it needs one each")
    ranks, size = found.ranks(found.pictures), found.split.n_gallery
    figure = maps.draw_gallery_sizes(
        ranks, size, unseen=found.unseen, title=found.title("Recall by size of the gallery")
    )
    save_png(figure, path)
    first = int(maps.gallery_sizes(size)[0])
    return f"R@1 in % among {first} photos, " + _before_after(
        ranks, lambda values: recall_at_gallery_size(values, size, first).mean()
    )


def made_alike(found: Measured, path: Path) -> str:
    """How alike what the style makes is across styles."""
    model = found.model
    things: dict[str, Callable[[Tensor], Tensor]] = {}
    if found.codes and model.query_map is not None and model.query_map.style is not None:
        things["scale and shift of the query map"] = lambda codes: model.query_map.style(
            model.style_inputs(codes, len(codes))["gram"]
        )
    if found.codes and model.prompts is not None and model.prompts.config.reads_style:
        things["prompt tokens"] = lambda codes: torch.cat(
            [t.flatten(1) for t in model.prompt_tokens(codes, len(codes)) if t is not None], dim=1
        )
    if not things:
        raise NothingToDraw("the model has neither a styled query map nor prompts made from style")
    tables = {
        what: likeness.similarity_of(make, found.codes, model) for what, make in things.items()
    }
    figure = maps.draw_similarity(
        tables,
        list(found.codes),
        unseen=found.unseen,
        title=found.title("What the style makes"),
    )
    save_png(figure, path)
    across = ~np.eye(len(found.codes), dtype=bool)
    told = []
    for what, table in tables.items():
        others = f", between styles {table[across].mean():.2f}" if across.any() else ""
        told.append(f"{what}: within a style {table.diagonal().mean():.2f}{others}")
    return "mean cosine, " + "; ".join(told)


def wins_and_losses(found: Measured, path: Path) -> str:
    """Drawn queries that only one of the two finds first."""
    outcomes = found.ranks(found.pictures)
    before, after = outcomes[CONTROL], outcomes[found.name]
    picked = likeness.draw_queries(before, after, EACH, found.seed)
    if not picked:
        raise NothingToDraw("both find the same queries first")
    count = {
        won: sum(likeness.only_first(before, after, s, won).sum() for s in before)
        for won in (True, False)
    }
    case_grid(
        [
            case_of(
                found.evaluation,
                (CONTROL, found.name),
                style,
                row,
                label=f"{style}: {'won' if won else 'lost'}",
            )
            for style, row, won in picked
        ],
        path,
        gallery_size=found.split.n_gallery,
        title=f"{found.name}: drawn by seed from {count[True]:,} wins, {count[False]:,} losses",
        names={CONTROL: BEFORE},
    )
    return f"{count[True]:,} queries won, {count[False]:,} lost at rank 1"


FIGURES: dict[str, Callable[[Measured, Path], str]] = {
    "embedding_map.png": embedding_map,
    "style_space.png": style_space,
    "recall_curves.png": recall_curves,
    "gallery_size.png": gallery_size,
    "style_similarity.png": made_alike,
    "wins_and_losses.png": wins_and_losses,
}


def _before_after(ranks: dict[str, dict[str, np.ndarray]], value: Callable) -> str:
    old, new = ranks.values()
    return ", ".join(f"{s} {100 * value(old[s]):.1f} -> {100 * value(new[s]):.1f}" for s in old)


def say(text: str) -> None:
    """One line, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
