"""Fetch or find npm packages at pinned versions, for the recipes that build data sets."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm


class BuildError(Exception):
    """Bad input; the message is one sentence that names the remedy."""


@dataclass(frozen=True)
class Package:
    """An npm package, its version, and the SHA-256 of its packed archive."""

    name: str
    version: str
    sha256: str

    def __str__(self) -> str:
        """Return ``name@version``, as npm writes it."""
        return f"{self.name}@{self.version}"


def check_package(folder: Path, package: Package) -> Path:
    """Return ``folder`` when it holds ``package`` at its pinned version.

    Raises:
        BuildError: There is no readable package.json, or it names another version.
    """
    try:
        found = json.loads((folder / "package.json").read_text("utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BuildError(
            f"{folder}/package.json is not readable; unpack npm package {package} there."
        ) from error
    if found != package.version:
        raise BuildError(
            f"{folder} holds version {found} of {package.name}, but {package.version} is wanted; "
            f"unpack {package} instead."
        )
    return folder


def find_packages(root: Path, packages: Iterable[Package]) -> dict[str, Path]:
    """Return the folder of each package in ``root/<name>`` or ``root/node_modules/<name>``.

    Raises:
        BuildError: A package is missing or has another version.
    """
    if not root.is_dir():
        raise BuildError(f"There is no folder {root}; give --packages a folder of npm packages.")
    found = {}
    for package in packages:
        places = (root / package.name, root / "node_modules" / package.name)
        folder = next((place for place in places if place.is_dir()), None)
        if folder is None:
            raise BuildError(
                f"{root} has neither {package.name}/ nor node_modules/{package.name}/; "
                f"unpack npm package {package} there."
            )
        found[package.name] = check_package(folder, package)
    return found


def fetch_packages(cache: Path, packages: Iterable[Package]) -> dict[str, Path]:
    """Return the folder of each package below ``cache``, fetched with ``npm pack`` if need be.

    Archives are checked against their pinned SHA-256 before they are unpacked.

    Raises:
        BuildError: npm is missing or failed, or an archive differs from the pinned one.
    """
    found = {}
    for package in tqdm(list(packages), desc="Packages", unit="package", delay=2):
        target = cache / str(package)
        if not target.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                _fetch(package, Path(scratch)).rename(target)
        found[package.name] = check_package(target, package)
    return found


def _fetch(package: Package, scratch: Path) -> Path:
    """Fetch and unpack one package below ``scratch``; return its folder."""
    npm = shutil.which("npm")
    if npm is None:
        raise BuildError("npm is not installed; install it or give --packages DIR.")
    command = [npm, "pack", str(package), "--silent", "--pack-destination", str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(scratch.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        detail = (done.stderr.strip().splitlines() or ["no archive came"])[-1]
        raise BuildError(
            f"npm could not fetch {package} ({detail}); "
            "check the connection or give --packages DIR."
        )
    if hashlib.sha256(archives[0].read_bytes()).hexdigest() != package.sha256:
        raise BuildError(
            f"The archive of {package} differs from the pinned one; "
            "give --packages DIR with a copy you trust."
        )
    with tarfile.open(archives[0]) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / "package"
