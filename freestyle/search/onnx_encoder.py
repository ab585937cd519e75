"""Query pictures and texts to vectors by ONNX Runtime, without torch.

Graphs and files are those of ``freestyle export``. Pictures are prepared by Pillow and NumPy as
everywhere else; all that is trained, framing and style reading included, lies inside the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from freestyle.encoders.preprocess import to_array
from freestyle.encoders.token_ids import Tokens, open_tokens
from freestyle.errors import UserError
from freestyle.search.exported import CALIBRATION, read_manifest
from freestyle.search.photo_terms import PhotoTerms
from freestyle.search.query_encoder import Encoded

if TYPE_CHECKING:
    from onnxruntime import InferenceSession
    from PIL import Image

BATCH = 32  # pictures or texts at a time: bounds memory whatever the caller gives


class OnnxQueryEncoder:
    """The :class:`~freestyle.search.query_encoder.QueryEncoder` of an exported folder.

    Args:
        folder: Written by ``freestyle export``.
        threads: Of one pass (ONNX Runtime's intra-op threads); None takes all cores.
        providers: ONNX Runtime's, in order of preference; None takes the CPU.

    Raises:
        UserError: If the folder is no export, or is damaged, or a package is missing.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        threads: int | None = None,
        providers: Sequence[str] | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"threads is {threads}: use 1 or more, or leave it out for all cores")
        self.folder = Path(folder)
        self.manifest = read_manifest(folder, "image.onnx", "text.onnx")
        self.encoder, self.weights = self.manifest.encoder, self.manifest.weights
        self.width = self.manifest.width
        self.threads, self.providers = threads, list(providers or ["CPUExecutionProvider"])
        self._preprocessing = self.manifest.pixels
        self._terms: PhotoTerms | None = None
        if self.manifest.calibration is not None:
            self._terms = PhotoTerms.read(self.folder / CALIBRATION, self.manifest.calibration)

    @classmethod
    def open(cls, folder: str | Path, **options: Any) -> OnnxQueryEncoder:
        """The encoder of a folder, both graphs loaded; options are the class's."""
        encoder = cls(folder, **options)
        _ = encoder._images, encoder._texts
        return encoder

    @cached_property
    def _images(self) -> InferenceSession:
        return self._session("image.onnx")

    @cached_property
    def _texts(self) -> tuple[Tokens, InferenceSession]:
        return open_tokens(self.manifest.tokens, self.folder), self._session("text.onnx")

    def embed_images(self, images: Sequence[Image.Image]) -> Encoded:
        """Query pictures (upright RGB, from ``load_image``) of any size."""
        names = self.manifest.outputs
        parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for start in range(0, len(images), BATCH):
            batch = [
                to_array(image, self._preprocessing) for image in images[start : start + BATCH]
            ]
            for name, value in zip(names, self._run(self._images, pixels=batch), strict=True):
                parts[name].append(value)
        if not images:
            return Encoded(self._no_rows(), ())
        outputs = {name: np.concatenate(values) for name, values in parts.items()}
        styles = self._styles(outputs["shares"]) if "shares" in outputs else None
        return Encoded(outputs["rows"], styles or tuple({} for _ in images), outputs.get("places"))

    def embed_texts(self, texts: Sequence[str]) -> Encoded:
        """Query texts."""
        if not texts:
            return Encoded(self._no_rows(), ())
        tokens, session = self._texts
        rows = []
        for start in range(0, len(texts), BATCH):
            ids, mask = tokens(list(texts[start : start + BATCH]))
            rows.append(self._run(session, ids=ids, mask=mask)[0])
        return Encoded(np.concatenate(rows), tuple({} for _ in texts))

    def complete(self, vectors: np.ndarray) -> np.ndarray:
        """Photos' embeddings ``(N, E)`` with a calibration's columns ``(N, E + C)``, float32."""
        vectors = np.asarray(vectors, dtype=np.float32)
        if self._terms is None:
            return vectors
        return np.concatenate([vectors, self._terms(vectors)], axis=1)

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of the trained styles that it tells apart."""
        return tuple(self.manifest.styles) if "shares" in self.manifest.outputs else ()

    @property
    def columns(self) -> int:
        """E + C."""
        return self.width + self.manifest.columns

    def _styles(self, shares: np.ndarray) -> tuple[dict[str, float], ...]:
        """Probabilities by name from shares ``(B, S)``; what is left is ``other``."""
        names = self.manifest.styles
        return tuple(
            {**dict(zip(names, map(float, row), strict=True)), "other": max(0.0, 1.0 - row.sum())}
            for row in shares.astype(np.float64)
        )

    def _no_rows(self) -> np.ndarray:
        return np.empty((0, self.columns), dtype=np.float32)

    def _run(self, session: InferenceSession, **inputs: Any) -> list[np.ndarray]:
        wanted = {put.name for put in session.get_inputs()}
        given = {name: np.asarray(value) for name, value in inputs.items() if name in wanted}
        return session.run(None, given)

    def _session(self, name: str) -> InferenceSession:
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                "an exported model is run by the package onnxruntime, which is not installed: "
                "run pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads or 0
        options.inter_op_num_threads = 1
        # threads that wait in a loop would take the cores from decoding and from the server
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            return onnxruntime.InferenceSession(
                str(self.folder / name), options, providers=self.providers
            )
        except Exception as error:
            raise UserError(
                f"{self.folder / name} cannot be run here ({str(error).splitlines()[0][:200]}): "
                "export the model again with this version"
            ) from error
