"""The style space: K-means bases over Gram codes, and soft projection onto them.

Source: FreestyleRet (arXiv 2312.02428, section 3.2): centres mu_1 ... mu_K of the codes of all
training queries, without labels; for any query ``w_j = softmax_j(cos(g, mu_j))`` and
``s = sum_j w_j mu_j``. Added here: centring, PCA, a common scale and a temperature, since raw Gram
codes all point nearly the same way and the plain softmax barely tells the bases apart.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from freestyle.errors import UserError
from freestyle.style import fitting

FORMAT = "freestyle-style-space-1"


class StyleSpace(nn.Module):
    """A fixed space of style bases; buffers only, nothing trains.

    The constructor makes an unfitted space of the right shapes, for ``load_state_dict``;
    :meth:`fit` makes a fitted one. The paper's literal form is ``n_components=None,
    center=False, temperature=1.0`` (and ``scale=False`` to keep the codes' own length).

    The temperature matters: cosines lie in [-1, 1], so with K bases no weight can exceed
    ``e^(1/T) / (e^(1/T) + (K - 1) e^(-1/T))``, which is 0.711 for K = 4 at T = 1: even a query
    that *is* a base stays near the plain mean of all bases. Raw Gram codes, whose cosines are all
    close to 1, stay closer still. At T = 0.1 the bound is above 0.999.

    Args:
        code_dim: Length of a style code.
        n_bases: Number of bases K.
        n_components: Length d of the reduced code; ``None`` reduces nothing, d = ``code_dim``.
        temperature: T above; may be changed at any time.
        center: Whether codes are centred on the fitted mean.
        whiten: How far the axes' deviations are evened out, 0 (``False``) to 1 (``True``).
        scale: Whether reduced codes are scaled to a mean square of 1 per entry.
        seed: The one it was fitted with.
        reader_tag: Tag of the reader whose codes it was fitted on; "" when unknown.
        n_codes: Number of codes it was fitted on; 0 while unfitted.

    Attributes:
        dim: Length d of a reduced code and of a projection.
        mean: ``(code_dim,)`` the mean code, kept also when codes are not centred on it.
        bases: ``(K, d)`` the centres mu.

    Raises:
        UserError: A setting out of range.
    """

    def __init__(
        self,
        code_dim: int,
        n_bases: int = 4,
        n_components: int | None = 64,
        temperature: float = 0.1,
        *,
        center: bool = True,
        whiten: bool | float = False,
        scale: bool = True,
        seed: int = 0,
        reader_tag: str = "",
        n_codes: int = 0,
    ) -> None:
        super().__init__()
        if n_bases < 1:
            raise UserError(f"The style space needs n_bases of at least 1, not {n_bases}.")
        if n_components is not None and not 1 <= n_components <= code_dim:
            raise UserError(
                f"n_components {n_components} of the style space must lie between 1 and the code "
                f"length {code_dim}, or be none."
            )
        if not 0 <= float(whiten) <= 1:
            raise UserError(f"whiten {whiten} of the style space must lie between 0 and 1.")
        self.code_dim, self.n_bases, self.n_components = code_dim, n_bases, n_components
        self.dim = n_components or code_dim
        self.temperature = temperature
        self.center, self.whiten, self.scale = bool(center), float(whiten), bool(scale)
        self.seed, self.reader_tag, self.n_codes = seed, reader_tag, n_codes
        self.register_buffer("mean", torch.zeros(code_dim))
        axes = None if n_components is None else torch.zeros(n_components, code_dim)
        self.register_buffer("axes", axes)
        self.register_buffer("factor", torch.zeros(self.dim))
        self.register_buffer("bases", torch.zeros(n_bases, self.dim))

    @property
    def temperature(self) -> float:
        """Softmax temperature T > 0: small for hard weights, large for equal ones."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"Style temperature {value} must be a positive number.")
        self._temperature = float(value)

    @property
    def is_fitted(self) -> bool:
        """Whether bases have been fitted or loaded."""
        return bool(self.factor.any())

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain JSON values: ``StyleSpace(**config)``."""
        return {
            "code_dim": self.code_dim,
            "n_bases": self.n_bases,
            "n_components": self.n_components,
            "temperature": self.temperature,
            "center": self.center,
            "whiten": self.whiten,
            "scale": self.scale,
            "seed": self.seed,
            "reader_tag": self.reader_tag,
            "n_codes": self.n_codes,
        }

    @classmethod
    def fit(
        cls,
        codes: Tensor | np.ndarray,
        n_bases: int = 4,
        seed: int = 0,
        n_components: int | None = 64,
        temperature: float = 0.1,
        center: bool = True,
        whiten: bool | float = False,
        *,
        scale: bool = True,
        minibatch_above: int = 20_000,
        reader_tag: str = "",
    ) -> StyleSpace:
        """Fits the space on unlabelled codes of all styles together.

        Args:
            codes: ``(N, code_dim)``, finite; a memory-mapped array stays on disk.
            n_bases: Number of bases K, at most the number of different codes.
            seed: Of PCA and K-means; the same codes and seed give the same space.
            n_components: PCA components, at most ``code_dim``. Those that N codes cannot span
                are zero, so that the shape never depends on N.
            temperature: See the class.
            center: See the class. Without it the reduction is a truncated SVD.
            whiten: See the class.
            scale: See the class.
            minibatch_above: More codes than this are clustered by mini-batch K-means; up to it,
                K-means runs until the centres stop moving.
            reader_tag: Tag of the :class:`~freestyle.style.reader.StyleReader` used.

        Returns:
            A fitted space on the CPU.

        Raises:
            UserError: Too few or too similar codes, NaN or infinite entries, bad settings.
        """
        codes = fitting.to_codes(codes, n_bases)  # (N, code_dim)
        count, code_dim = codes.shape
        space = cls(
            code_dim,
            n_bases,
            None if n_components is None else min(n_components, code_dim),
            temperature,
            center=center,
            whiten=whiten,
            scale=scale,
            seed=seed,
            reader_tag=reader_tag,
            n_codes=count,
        )
        mean, axes = fitting.principal_axes(codes, space.n_components, center, seed)
        space.mean.copy_(torch.from_numpy(mean))
        if axes is not None:
            space.axes.copy_(torch.from_numpy(axes))
        space.factor.fill_(1.0)
        reduced = space._embed_all(codes)  # (N, d)
        factor = fitting.scale_factor(reduced, space.whiten, space.scale)
        space.factor.copy_(torch.from_numpy(factor))
        bases = fitting.cluster(reduced * factor, n_bases, seed, minibatch_above)
        space.bases.copy_(torch.from_numpy(bases))
        return space

    def _embed_all(self, codes: np.ndarray) -> np.ndarray:
        """Embeds ``(N, code_dim)`` in pieces: ``(N, d)`` float64."""
        pieces = []
        for start in range(0, len(codes), 4096):
            piece = torch.from_numpy(np.array(codes[start : start + 4096], dtype=np.float32))
            pieces.append(self.embed(piece).double().numpy())
        return np.concatenate(pieces)

    def embed(self, codes: Tensor) -> Tensor:
        """The Gram code g: centred, reduced, scaled.

        Args:
            codes: ``(B, code_dim)`` of any floating type. A row that holds NaN or infinity
                stands for an unknown style and gives zeros.

        Returns:
            ``(B, d)`` float32, also under autocast.
        """
        with torch.autocast(codes.device.type, enabled=False):
            g = codes.float()  # (B, code_dim)
            if self.center:
                g = g - self.mean.float()
            known = g.isfinite().all(dim=1, keepdim=True)  # (B, 1)
            g = torch.where(known, g, 0.0)
            if self.axes is not None:
                g = g @ self.axes.float().t()  # (B, d)
            return g * self.factor.float()

    def weights(self, codes: Tensor) -> Tensor:
        """How much of each base a style has.

        Args:
            codes: ``(B, code_dim)``.

        Returns:
            ``(B, K)`` in [0, 1], rows sum to 1: ``softmax(cos(g, mu) / temperature)``. A code
            (or base) of zero length has cosine 0, so a zero code weighs all bases equally.
        """
        return self._weights(self.embed(codes))

    def _weights(self, g: Tensor) -> Tensor:
        """Weights ``(B, K)`` of embedded codes ``(B, d)``."""
        with torch.autocast(g.device.type, enabled=False):
            cosine = F.normalize(g, dim=1) @ F.normalize(self.bases.float(), dim=1).t()
            return (cosine / self.temperature).softmax(dim=1)  # (B, K)

    def project(self, codes: Tensor) -> Tensor:
        """The style as a mixture of bases: ``s = sum_j w_j mu_j``.

        Args:
            codes: ``(B, code_dim)``, of any style, seen in fitting or not.

        Returns:
            ``(B, d)`` float32, inside the convex hull of the bases.
        """
        return self.mix(self.weights(codes))

    def mix(self, weights: Tensor) -> Tensor:
        """Mixes the bases by given weights: ``(B, K)`` to ``(B, d)`` float32."""
        with torch.autocast(weights.device.type, enabled=False):
            return weights.float() @ self.bases.float()

    forward = project

    def check_reader(self, reader_tag: str) -> None:
        """Refuses codes of another reader than the one this space was fitted with.

        Raises:
            UserError: Both tags are known and differ.
        """
        if self.reader_tag and reader_tag and self.reader_tag != reader_tag:
            raise UserError(
                f"The style space was fitted with style reader {self.reader_tag!r}, not "
                f"{reader_tag!r}: fit it again, or use the reader it was made with."
            )

    def save(self, path: str | Path) -> None:
        """Writes the space as safetensors, settings in its metadata; all or nothing."""
        fitting.write_space(Path(path), self.state_dict(), {"format": FORMAT, **self.config})

    @classmethod
    def load(cls, path: str | Path) -> StyleSpace:
        """Reads a space written by :meth:`save`, bit for bit.

        Raises:
            UserError: No such file, a damaged file, or a file of something else.
        """
        state, config = fitting.read_space(Path(path), FORMAT)
        try:
            space = cls(**config)
            space.load_state_dict(state)
        except (TypeError, RuntimeError) as error:
            raise UserError(f"Style space {path} is damaged: fit it again.") from error
        return space
