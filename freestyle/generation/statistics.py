"""Do the made styles differ, from the photos and from each other? By our own style space.

Pictures' Gram codes are embedded by a style space fitted on all of them together (FreestyleRet,
arXiv 2312.02428, section 3.2), and sets of pictures are compared there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from freestyle.files import write_json, write_text
from freestyle.generation.journal import PHOTOS, Journal
from freestyle.generation.sheet import sample

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SIDE = 128  # pixels that pictures are shown to the style reader at
FEWEST = 8  # photos below which nothing is said


def style_statistics(
    journal: Journal, ids: Sequence[str], styles: Sequence[str], count: int = 200
) -> dict[str, Any] | None:
    """Compare the sets of a finished folder and write ``statistics.json`` and ``statistics.md``.

    Args:
        journal: Of the folder.
        ids: Photos to choose from.
        styles: Styles to compare with the photos; ``text`` is left out.
        count: Most photos to look at.

    Returns:
        What was written; None where there are too few photos to say anything.
    """
    chosen = sample(ids, count)
    if len(chosen) < FEWEST:
        return None
    names = [PHOTOS, *(style for style in styles if style != "text")]
    codes, tag = _codes(journal, chosen, names)
    values = {"reader": tag, "photos": len(chosen), **compare(codes)}
    write_json(journal.root / "statistics.json", values)
    write_text(journal.root / "statistics.md", page(values))
    return values


def compare(codes: Mapping[str, Tensor]) -> dict[str, Any]:
    """Distances between sets of style codes.

    Args:
        codes: ``(N, code_dim)`` by set, N of two or more and equal.

    Returns:
        ``distance[a][b]``: between the sets' means, in units of their pooled spread (root of the
        mean squared distance from the own mean); ``recognised[a]``: share in [0, 1] of the set
        that lies nearer to its own mean, computed without the picture itself, than to any other;
        ``weights[a]``: mean weight of each base of the style space.
    """
    import torch

    from freestyle.style.space import StyleSpace

    together = torch.cat(list(codes.values()))
    components = min(64, len(together) - 1, together.shape[1])
    space = StyleSpace.fit(together, n_bases=min(4, len(codes)), n_components=components)
    points = {name: space.embed(value).double().numpy() for name, value in codes.items()}
    weights = {
        name: [round(w, 4) for w in space.weights(value).mean(dim=0).tolist()]
        for name, value in codes.items()
    }
    return {
        "distance": _distances(points),
        "recognised": _recognised(points),
        "weights": weights,
    }


def _distances(points: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    import numpy as np

    means = {name: p.mean(axis=0) for name, p in points.items()}
    spread = {n: ((p - means[n]) ** 2).sum(axis=1).mean() for n, p in points.items()}
    table: dict[str, dict[str, float]] = {}
    for a in points:
        table[a] = {}
        for b in points:
            gap = float(np.linalg.norm(means[a] - means[b]))
            pooled = float(np.sqrt((spread[a] + spread[b]) / 2))
            table[a][b] = round(gap / pooled, 4) if pooled else 0.0
    return table


def _recognised(points: Mapping[str, np.ndarray]) -> dict[str, float]:
    import numpy as np

    means = {name: p.mean(axis=0) for name, p in points.items()}
    shares = {}
    for name, p in points.items():
        without = (means[name] * len(p) - p) / (len(p) - 1)  # (N, d) mean of the others
        own = np.linalg.norm(p - without, axis=1)
        others = [np.linalg.norm(p - m, axis=1) for n, m in means.items() if n != name]
        shares[name] = round(float((own < np.min(others, axis=0)).mean()), 4) if others else 1.0
    return shares


def page(values: Mapping[str, Any]) -> str:
    """The statistics in Markdown."""
    names = list(values["distance"])
    shown = {name: "photos" if name == PHOTOS else name for name in names}
    head = " | ".join(shown[name] for name in names)
    lines = [
        "# Style statistics",
        "",
        f"{values['photos']} photos and what was made of them; Gram codes by `{values['reader']}`, "
        "embedded by a style space fitted on all of them.",
        "",
        "Distance between the means of two sets, in units of their pooled spread; *recognised* is "
        "the share of a set that lies nearer to its own mean than to any other's.",
        "",
        f"| | {head} | recognised |",
        "| --- |" + " ---: |" * (len(names) + 1),
    ]
    for name in names:
        cells = " | ".join(f"{values['distance'][name][other]:.2f}" for other in names)
        lines.append(f"| {shown[name]} | {cells} | {100 * values['recognised'][name]:.0f} % |")
    return "\n".join(lines) + "\n"


def _codes(
    journal: Journal, ids: Sequence[str], styles: Sequence[str]
) -> tuple[dict[str, Tensor], str]:
    """Style codes ``(N, code_dim)`` by set, and the reader's tag."""
    import torch

    from freestyle.config import StyleConfig
    from freestyle.datasets.images import load_image
    from freestyle.encoders.base import Preprocessing
    from freestyle.encoders.preprocess import to_pixels
    from freestyle.style.build import build_reader

    reader = build_reader(StyleConfig(resolution=96))
    seen = Preprocessing(size=SIDE, resize="exact", interpolation="bicubic")
    wanted = set(ids)
    found = {}
    for style in styles:
        files = {
            r["id"]: journal.root / r["file"] for r in journal.rows(style) if r["id"] in wanted
        }
        rows = []
        for start in range(0, len(ids), 32):
            batch = [to_pixels(load_image(files[n]), seen) for n in ids[start : start + 32]]
            rows.append(reader(torch.stack(batch)))
        found[style] = torch.cat(rows)
    return found, reader.tag
