"""What a calibration lowers photos by, in NumPy; see :mod:`freestyle.calibration`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from freestyle.errors import UserError

CHUNK = 4096  # photos at a time


class PhotoTerms:
    """h_s(g) = strength * T * log mean_{b in B_s} exp(b . g / T), for S styles and for texts.

    Args:
        bank: Embedded training queries ``(M, E)``.
        member: Their styles ``(M,)``, S for texts.
        n_styles: S.
        settings: ``temperature``, ``strength``, ``text_temperature``, ``text_strength``.
    """

    def __init__(
        self, bank: np.ndarray, member: np.ndarray, n_styles: int, settings: Mapping[str, float]
    ) -> None:
        self.n_styles = n_styles
        self._parts = []
        for number in range(n_styles + 1):
            kind = "text_" if number == n_styles else ""
            heat, strength = settings[f"{kind}temperature"], settings[f"{kind}strength"]
            own = np.ascontiguousarray(bank[member == number], dtype=np.float32)
            self._parts.append((own, heat, strength))

    @classmethod
    def read(cls, path: Path, settings: Mapping[str, float]) -> PhotoTerms:
        """From an exported ``calibration.safetensors``.

        Raises:
            UserError: If it does not hold a calibration.
        """
        from safetensors.numpy import load_file

        try:
            state = load_file(path)
            return cls(state["bank"], state["member"], int(state["n_styles"][0]), settings)
        except Exception as error:
            raise UserError(f"{path} is damaged ({error}): export the model again") from error

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """Photos ``(N, E)`` to ``(N, S + 1)`` float32."""
        terms = np.zeros((len(vectors), self.n_styles + 1), dtype=np.float32)
        for number, (bank, heat, strength) in enumerate(self._parts):
            if not len(bank) or not strength:
                continue
            for start in range(0, len(vectors), CHUNK):
                logits = vectors[start : start + CHUNK].astype(np.float32) @ bank.T / heat
                top = logits.max(axis=1, keepdims=True)
                mean = np.log(np.exp(logits - top).mean(axis=1)) + top[:, 0]
                terms[start : start + CHUNK, number] = strength * heat * mean
        return terms
