"""Pictures and texts as sets of embeddings: views of a picture, phrases of a text.

The first element of a set is always the whole picture or the whole text, so that every set also
holds its own single-vector version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from freestyle.errors import UserError
from freestyle.transport.views import Views, view_weights

if TYPE_CHECKING:
    from PIL import Image

    from freestyle.datasets.composed import Picture
    from freestyle.encoders.base import DualEncoder
    from freestyle.model import FreestyleRet

PART = 2048  # sets completed at a time


@dataclass
class Sets:
    """N sets of M elements.

    Attributes:
        atoms: ``(N, M, E)``, unit norm in the encoder's own dimensions; columns of a model's
            calibration may follow.
        weights: ``(N, M)`` float32, at least 0, sum 1; None weighs all alike.
    """

    atoms: Tensor
    weights: Tensor | None = None

    def __post_init__(self) -> None:
        if self.atoms.ndim != 3:
            raise ValueError(f"expected atoms (N, M, E), got {tuple(self.atoms.shape)}")
        if self.weights is not None and self.weights.shape != self.atoms.shape[:2]:
            raise ValueError(
                f"weights {tuple(self.weights.shape)} do not fit atoms {tuple(self.atoms.shape)}"
            )

    def __len__(self) -> int:
        return len(self.atoms)

    def take(self, rows: Tensor | slice) -> Sets:
        """The sets at these positions."""
        return Sets(self.atoms[rows], None if self.weights is None else self.weights[rows])


def weigh(sets: Sets, whole: float | None) -> Sets:
    """Sets whose first element has this share of the weight; as they are where it is None."""
    count = sets.atoms.shape[1]
    if whole is None or count == 1:
        return sets
    rest = torch.full((len(sets), count), 1.0) if sets.weights is None else sets.weights.clone()
    rest[:, 0] = 0
    weights = (1 - whole) * rest / rest.sum(dim=1, keepdim=True).clamp(min=1e-12)
    weights[:, 0] = whole
    return Sets(sets.atoms, weights)


def ragged(parts: Sequence[Tensor], width: int) -> Sets:
    """Sets of different sizes in one: padding has weight 0, the others share weight 1.

    Args:
        parts: Per set its elements ``(K_i, E)``; where K_i is 0 the set is one zero vector, which
            is equally far from everything.
        width: E, also where there is no element at all.
    """
    most = max([len(part) for part in parts], default=1) or 1
    atoms = torch.zeros(len(parts), most, width)
    weights = torch.zeros(len(parts), most)
    for row, part in enumerate(parts):
        atoms[row, : len(part)] = part
        weights[row, : max(1, len(part))] = 1 / max(1, len(part))
    return Sets(atoms, weights)


def cut_sets(
    encode: Callable[[list[Image.Image]], Tensor],
    pictures: Sequence[Picture],
    views: Views,
    *,
    batch_size: int = 64,
    description: str = "Embedding views",
    dtype: torch.dtype = torch.float32,
) -> Sets:
    """Sets of pictures, every view embedded like a picture.

    Args:
        encode: PIL images to rows ``(B, E)``.
        pictures: Paths, PIL images or cuts of pictures.
        views: Which views; not ``patches``.
        batch_size: Views per call.
        description: Of the progress bar, which shows itself after two seconds.
        dtype: Of the atoms that are kept.

    Returns:
        ``(N, M, E)`` and their weights.

    Raises:
        UserError: If a picture cannot be read.
    """
    from freestyle.datasets.composed import load_picture

    boxes = views.boxes()
    atoms: Tensor | None = None
    weights = torch.empty(len(pictures), len(boxes))
    per_pass = max(1, batch_size // len(boxes))
    with tqdm(total=len(pictures), desc=description, unit="picture", delay=2) as bar:
        for start in range(0, len(pictures), per_pass):
            images = [load_picture(p) for p in pictures[start : start + per_pass]]
            rows = encode([box.cut(image) for image in images for box in boxes])
            if atoms is None:
                atoms = torch.empty(len(pictures), len(boxes), rows.shape[1], dtype=dtype)
            atoms[start : start + len(images)] = rows.view(len(images), len(boxes), -1).to(dtype)
            for i, image in enumerate(images):
                weights[start + i] = torch.from_numpy(view_weights(image, boxes, views.weights))
            bar.update(len(images))
    if atoms is None:
        raise UserError("there are no pictures to embed: check the data set's lists")
    return Sets(atoms, None if views.weights == "uniform" else weights)


@torch.inference_mode()
def patch_sets(
    encoder: DualEncoder,
    pictures: Sequence[Picture],
    count: int,
    *,
    batch_size: int = 32,
    description: str = "Embedding patches",
) -> Sets:
    """The whole picture and its projected patch tokens, pooled over areas to at most ``count``.

    Returns:
        ``(N, 1 + s * s, E)`` with the largest s whose square fits ``count - 1``.
    """
    from freestyle.datasets.composed import load_picture

    device = next(encoder.parameters()).device
    found = []
    starts = range(0, len(pictures), batch_size)
    for start in tqdm(starts, desc=description, unit="batch", delay=2):
        batch = [load_picture(p) for p in pictures[start : start + batch_size]]
        pixels = torch.stack([encoder.preprocess(image) for image in batch]).to(device)
        found.append(patch_atoms(encoder, pixels, count).cpu())
    if not found:
        raise UserError("there are no pictures to embed: check the data set's lists")
    return Sets(torch.cat(found))


def patch_atoms(encoder: DualEncoder, pixels: Tensor, count: int) -> Tensor:
    """One batch of :func:`patch_sets` in one pass of the encoder.

    Args:
        encoder: The encoder, untouched.
        pixels: RGB in [0, 1], ``(B, 3, S, S)``.
        count: At most so many elements.

    Returns:
        ``(B, 1 + s * s, E)`` float32, unit norm; the first element is the plain embedding.
    """
    tokens = encoder.run_blocks(encoder.patch_tokens(pixels))
    whole = F.normalize(encoder.pool(tokens).float(), dim=-1)  # (B, E)
    local = _pooled(encoder.atoms(tokens).float(), count - 1)  # (B, s * s, E)
    return torch.cat([whole[:, None], local], dim=1)


def _pooled(local: Tensor, count: int) -> Tensor:
    """Square maps of patches ``(B, N, E)`` averaged over areas, unit norm."""
    side = round(local.shape[1] ** 0.5)
    fits = int(max(count, 0) ** 0.5)
    if fits and fits < side and side * side == local.shape[1]:
        maps = local.mT.reshape(len(local), -1, side, side)
        local = F.adaptive_avg_pool2d(maps, fits).flatten(2).mT
    elif not fits:
        local = local[:, :0]
    return F.normalize(local, dim=-1)


class SetEncoder:
    """Sets by a model: photos by its untouched encoder, queries by its query side.

    Args:
        model: Any FreestyleRet; its prompted gallery, if it has one, embeds the photos' views.
        views: Of the photos.
        query_views: Of query pictures; those of the photos where None.
        cache: Folder of embedded sets; None computes anew. Sets are keyed by weights, views and
            the files' contents.
        dtype: Of the photos' atoms: float16 halves a large gallery.
    """

    def __init__(
        self,
        model: FreestyleRet,
        views: Views | None = None,
        query_views: Views | None = None,
        *,
        cache: str | Path | None = None,
        dtype: torch.dtype = torch.float32,
        batch_size: int = 64,
    ) -> None:
        self.model, self.views = model, views or Views()
        self.query_views = query_views or self.views
        if self.query_views.kind == "patches" and model.config.method != "zero-shot":
            raise UserError(
                "query views of kind patches need the frozen encoder: a trained model embeds whole "
                "pictures; use grid, pyramid or random"
            )
        if self.views.kind == "patches" and model.prompts_gallery:
            raise UserError(
                "views of kind patches need the untouched encoder's gallery: use grid, pyramid or "
                "random with a prompted one"
            )
        self.cache = Path(cache) if cache else None
        self.dtype, self.batch_size = dtype, batch_size

    @property
    def width(self) -> int:
        """E: the encoder's own dimensions, without columns of a calibration."""
        return self.model.encoder.embed_dim

    def photos(self, pictures: Sequence[Picture]) -> Sets:
        """Sets of photos ``(G, M, E')``, with the calibration's columns, if there are any."""
        return self.completed(self.frozen_photos(pictures))

    def frozen_photos(self, pictures: Sequence[Picture]) -> Sets:
        """Sets of photos ``(G, M, E)``, without columns.

        By the untouched encoder, the same for all its models; by the model itself where it has a
        prompted gallery.
        """
        from freestyle.transport.atom_cache import cached_sets

        def compute(part: Sequence[Picture]) -> Sets:
            if self.views.kind == "patches":
                return patch_sets(self.model.encoder, part, self.views.count)
            return cut_sets(
                self._frozen, part, self.views, batch_size=self.batch_size, dtype=self.dtype
            )

        own = self.model.prompts_gallery
        by = model_tag(self.model) if own else self.model.encoder.weights_tag
        tag = f"{by} {self.views.key} {self.dtype}"
        return weigh(cached_sets(self.cache, tag, pictures, compute), self.views.whole)

    def completed(self, frozen: Sets) -> Sets:
        """Frozen sets with the columns of this model's calibration, if there are any."""
        return Sets(self._with_columns(frozen.atoms), frozen.weights)

    def queries(self, pictures: Sequence[Picture]) -> Sets:
        """Sets of query pictures ``(Q, R, E')`` by the model's query side."""
        if self.query_views.kind == "patches":
            found = patch_sets(self.model.encoder, pictures, self.query_views.count)
            return weigh(found, self.query_views.whole)
        from freestyle.transport.atom_cache import cached_sets

        def compute(part: Sequence[Picture]) -> Sets:
            return cut_sets(
                self.model.encode_query, part, self.query_views, batch_size=self.batch_size
            )

        tag = f"query {model_tag(self.model)} {self.query_views.key}"
        return weigh(cached_sets(self.cache, tag, pictures, compute), self.query_views.whole)

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit-norm embeddings ``(N, E)`` of texts, each different one embedded once."""
        different = list(dict.fromkeys(texts))
        rows = self.model.encode_text(different)[:, : self.width]
        place = {text: row for row, text in enumerate(different)}
        return rows[torch.tensor([place[text] for text in texts], dtype=torch.int64)]

    def finish_texts(self, atoms: Tensor) -> Tensor:
        """Text atoms ``(..., E)`` with the calibration's columns, if there are any."""
        own = self.model.calibration
        if own is None:
            return atoms
        return own.extend_texts(atoms.reshape(-1, atoms.shape[-1])).view(*atoms.shape[:-1], -1)

    def _frozen(self, images: list[Image.Image]) -> Tensor:
        pixels = torch.stack([self.model.encoder.preprocess(image) for image in images])
        with torch.inference_mode():
            return self.model.photos_from(pixels.to(self.model.device)).cpu()

    def _with_columns(self, atoms: Tensor) -> Tensor:
        own = self.model.calibration
        if own is None or not own.is_fitted:
            return atoms
        width = atoms.shape[2]
        full = atoms.new_empty(*atoms.shape[:2], width + own.n_styles + 1)
        for start in range(0, len(atoms), PART):
            part = atoms[start : start + PART]
            rows = self.model.complete_gallery(part.reshape(-1, width).float())
            full[start : start + PART] = rows.view(*part.shape[:2], -1)
        return full


def model_tag(model: FreestyleRet) -> str:
    """Names a model by its encoder's weights and everything that it trained."""
    digest = hashlib.sha256(model.encoder.weights_tag.encode())
    for name, value in _own_state(model):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _own_state(model: FreestyleRet) -> Iterable[tuple[str, Tensor]]:
    for name, value in sorted(model.state_dict().items()):
        if not name.startswith(("encoder.", "reader.")) and value.numel():
            yield name, value
