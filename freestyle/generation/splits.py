"""Train, validation and test: by hash of the photo's id, near duplicates on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from freestyle.errors import UserError

SPLITS = ("train", "val", "test")
_BITS = 64


def parse_shares(text: str) -> tuple[int, int, int]:
    """Percent of train, validation and test, such as ``80,5,15``.

    Raises:
        UserError: If it is not three whole numbers that add up to 100.
    """
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() for part in parts):
        raise UserError(f"--splits {text}: give percent of train,val,test, such as 80,5,15")
    train, val, test = (int(part) for part in parts)
    if train + val + test != 100:
        raise UserError(f"--splits {text} adds up to {train + val + test}: make it 100")
    return train, val, test


def split_of(name: str, shares: tuple[int, int, int]) -> str:
    """The split of a photo by its id alone.

    >>> split_of("a", (100, 0, 0))
    'train'
    """
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    bucket = int(digest, 16) % 100
    if bucket < shares[0]:
        return "train"
    return "val" if bucket < shares[0] + shares[1] else "test"


def near_duplicates(hashes: Sequence[str], distance: int) -> np.ndarray:
    """Group photos whose perceptual hashes are near, directly or through others.

    Two hashes of at most d differing bits agree in one of d + 1 bands of their bits, so only
    photos that share a band are compared.

    Args:
        hashes: N hashes of 64 bits, as 16 hexadecimal digits.
        distance: Most bits in which near duplicates differ; below 0 groups nothing.

    Returns:
        ``(N,)`` int64: for each photo the lowest position in its group.
    """
    count = len(hashes)
    parents = np.arange(count, dtype=np.int64)
    if distance < 0 or count < 2:
        return parents
    packed = np.array([int(text, 16) for text in hashes], dtype=np.uint64)
    edges = np.linspace(0, _BITS, distance + 2).round().astype(int)
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        mask = np.uint64((1 << (high - low)) - 1)
        band = (packed >> np.uint64(low)) & mask
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order], prepend=~band[order[0]])).tolist()
        for start, end in zip(starts, [*starts[1:], count], strict=True):
            _join_near(order[start:end], packed, distance, parents)
    return np.array([_root(parents, position) for position in range(count)], dtype=np.int64)


def _join_near(members: np.ndarray, packed: np.ndarray, distance: int, parents: np.ndarray) -> None:
    for position, first in enumerate(members[:-1].tolist()):
        others = members[position + 1 :]
        differing = np.bitwise_count(packed[others] ^ packed[first])
        for second in others[differing <= distance].tolist():
            a, b = _root(parents, first), _root(parents, second)
            parents[max(a, b)] = min(a, b)


def _root(parents: np.ndarray, position: int) -> int:
    while parents[position] != position:
        parents[position] = parents[parents[position]]
        position = int(parents[position])
    return position


def assign(
    names: Sequence[str],
    groups: np.ndarray,
    shares: tuple[int, int, int],
    before: Mapping[str, str],
) -> list[str]:
    """The split of every photo.

    A group follows a member that already has a split; else the member of the lowest hash decides.
    So photos that are added change the split of none that was there.

    Args:
        names: N ids.
        groups: ``(N,)`` from `near_duplicates`.
        shares: Percent of each split.
        before: Splits by id of an earlier run, or those of the source.

    Returns:
        N names of splits.
    """
    leader: dict[int, tuple[bool, str, str]] = {}
    for name, group in zip(names, groups.tolist(), strict=True):
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        candidate = (name not in before, digest, name)
        leader[group] = min(leader.get(group, candidate), candidate)
    result = []
    for name, group in zip(names, groups.tolist(), strict=True):
        chief = leader[group][2]
        result.append(before.get(name) or before.get(chief) or split_of(chief, shares))
    return result
