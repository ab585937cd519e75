"""The work behind a style space: reduction, clustering, and its file."""

from __future__ import annotations

import json
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from freestyle.errors import UserError
from freestyle.files import write_atomically

LARGE = 2**28  # entries of a code matrix above which PCA works piece by piece
PIECE = 2**25  # entries of such a piece
EXACT = 2**22  # entries up to which PCA works in float64
METADATA_KEY = "freestyle"  # one key only: several would be written in random order


def to_codes(codes: Tensor | np.ndarray, n_bases: int) -> np.ndarray:
    """Checks codes for fitting: ``(N, code_dim)``, finite, enough of them.

    Raises:
        UserError: Otherwise.
    """
    if isinstance(codes, Tensor):
        codes = codes.detach().float().cpu().numpy()
    if codes.ndim != 2 or codes.shape[1] == 0:
        raise UserError(f"Style codes must be a table (N, code_dim), not of shape {codes.shape}.")
    needed = max(2, n_bases)
    if len(codes) < needed:
        raise UserError(
            f"{len(codes)} style codes are too few for n_bases {n_bases}: give at least {needed} "
            "training queries, or lower n_bases."
        )
    for rows in _pieces(codes):
        bad = ~np.isfinite(codes[rows]).all(axis=1)
        if bad.any():
            raise UserError(
                f"Style code {rows.start + int(bad.argmax())} holds NaN or infinity: leave that "
                "query out, or compute the cached codes again."
            )
    return codes


def principal_axes(
    codes: np.ndarray, n_components: int | None, center: bool, seed: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean and principal axes of codes, by scikit-learn.

    Args:
        codes: ``(N, C)``.
        n_components: Number of axes; ``None`` for no reduction.
        center: PCA about the mean; otherwise a truncated SVD about zero.
        seed: Of the randomised solvers.

    Returns:
        Mean code ``(C,)``, and orthonormal axes ``(n_components, C)`` or ``None``, float32. The
        largest entry of every axis is positive; axes beyond what N codes span are zero.
    """
    mean = codes.mean(axis=0, dtype=np.float64).astype(np.float32)
    if n_components is None:
        return mean, None
    from sklearn.decomposition import PCA, IncrementalPCA, TruncatedSVD

    axes = np.zeros((n_components, codes.shape[1]), dtype=np.float32)
    wanted = min(n_components, len(codes) - int(center))
    if codes.size <= EXACT:
        codes = codes.astype(np.float64)
    if not center:
        if codes.size > LARGE:  # a sample decides the axes as well
            rows = min(max(PIECE // codes.shape[1], 2 * wanted), len(codes))
            chosen = np.random.default_rng(seed).choice(len(codes), rows, replace=False)
            codes = np.asarray(codes[np.sort(chosen)])
        model = TruncatedSVD(wanted, n_iter=10, random_state=seed).fit(codes)
    elif codes.size > LARGE:
        model = IncrementalPCA(wanted)
        for rows in _pieces(codes, at_least=2 * wanted):
            model.partial_fit(np.asarray(codes[rows]))
    else:
        with np.errstate(invalid="ignore"):  # 0 / 0 where all codes are equal
            model = PCA(wanted, random_state=seed).fit(codes)
    axes[:wanted] = _signed(model.components_)
    return mean, axes


def cluster(points: np.ndarray, n_bases: int, seed: int, minibatch_above: int) -> np.ndarray:
    """K-means centres, by scikit-learn, iterated until they stop moving.

    Args:
        points: ``(N, d)``.
        n_bases: Number of centres K.
        seed: Of the starts; the best of ten is kept.
        minibatch_above: More points than this go through mini-batch K-means.

    Returns:
        ``(K, d)`` float32.

    Raises:
        UserError: Fewer different points than centres.
    """
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    if len(points) > minibatch_above:
        model = MiniBatchKMeans(
            n_bases, n_init=10, batch_size=4096, max_iter=300, random_state=seed
        )
    else:
        model = KMeans(n_bases, n_init=10, max_iter=10_000, tol=0.0, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = model.fit_predict(points)
    found = len(np.unique(labels))
    if found < n_bases:
        raise UserError(
            f"The style codes hold only {found} different styles, fewer than n_bases {n_bases}: "
            "lower n_bases, or fit on more varied queries."
        )
    return model.cluster_centers_.astype(np.float32)


def scale_factor(points: np.ndarray, whiten: float, scale: bool) -> np.ndarray:
    """What reduced codes are multiplied by.

    Args:
        points: ``(N, d)`` reduced codes.
        whiten: Axes are divided by their deviation to this power.
        scale: Then all by one number, for a mean square of 1 per entry.

    Returns:
        ``(d,)`` float32, positive and finite.
    """
    factor = np.ones(points.shape[1])
    deviation = points.std(axis=0)
    alive = deviation > 1e-6 * max(deviation.max(), 1e-30)
    if whiten:
        factor[alive] = deviation[alive] ** -whiten
    if scale:
        size = np.sqrt(np.mean((points * factor) ** 2))
        factor /= size if size > 0 else 1.0
    return factor.astype(np.float32)


def write_space(path: Path, state: dict[str, Tensor], settings: dict[str, Any]) -> None:
    """Writes tensors and settings as one safetensors file, all or nothing."""
    from safetensors.torch import save

    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    payload = save(tensors, {METADATA_KEY: json.dumps(settings, sort_keys=True)})
    write_atomically(path, lambda temporary: temporary.write_bytes(payload))


def read_space(path: Path, format_name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what :func:`write_space` wrote: tensors, and settings without their format.

    Raises:
        UserError: No such file, not safetensors, or safetensors of something else.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UserError(f"Style space {path} does not exist: correct the path or fit one first.")
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            state = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"Style space {path} is damaged: fit it again.") from error
    if not isinstance(settings, dict) or settings.pop("format", None) != format_name:
        raise UserError(f"{path} is not a style space: give a file written by StyleSpace.save.")
    return state, settings


def _signed(axes: np.ndarray) -> np.ndarray:
    """Axes ``(n, C)`` with their largest entry positive, float32."""
    largest = np.abs(axes).argmax(axis=1)
    signs = np.sign(axes[np.arange(len(axes)), largest])
    return (axes * np.where(signs == 0, 1.0, signs)[:, None]).astype(np.float32)


def _pieces(codes: np.ndarray, at_least: int = 1) -> list[slice]:
    """Row ranges of about ``PIECE`` entries, none shorter than ``at_least`` rows."""
    rows = max(at_least, PIECE // codes.shape[1], 1)
    edges = np.linspace(0, len(codes), max(1, len(codes) // rows) + 1).astype(int)
    return [slice(int(a), int(b)) for a, b in pairwise(edges)]
