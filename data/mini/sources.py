"""Where the mini's training pictures and words come from: three packages, nothing else.

Debian's ``openclipart-svg`` (public domain drawings with titles and tags) and
``tuxpaint-stamps-default`` (photographs and drawings with one English sentence each), and npm's
``@lobehub/fluent-emoji-3d`` (Microsoft's Fluent renders, MIT), of which only the *training*
concepts of DSR-Emoji are read. Left out by rule, not by eye: every emoji or smiley folder, every
validation and test concept, and (see :mod:`pictures`) every drawing without colour.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

DEBIAN = {
    "openclipart-svg": "1:0.18+dfsg-19",
    "tuxpaint-stamps-default": "2022.06.04-1",
}
NPM = {
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "openmoji": "17.0.0",  # only data/openmoji.json is read: the names of training concepts
}
SKIPPED_FOLDERS = ("people/smilies", "symbols/faces", "symbols/alphabets", "special/gradients")
SKIPPED_WORDS = re.compile(r"smil(ey|ies)|emoticon|emoji|ksmiletris|kemoticons|/face-", re.I)
MAX_SVG_BYTES = 1_500_000
DROPPED = re.compile(r"(^|-)(fe0f|200d|2640|2642)(?=-|$)")


@dataclass
class Picture:
    """One training picture and every text known for it, best first."""

    path: str
    source: str
    texts: list[str] = field(default_factory=list)


def fetch(cache: Path) -> dict[str, Path]:
    """Download and unpack all packages below ``cache``; finished ones are left alone.

    Returns:
        Package name to the folder with its content.
    """
    folders = {}
    for name, version in DEBIAN.items():
        folder = cache / "packages" / name
        if not (folder / ".done").exists():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["apt-get", "download", f"{name}={version}"], cwd=folder, check=True)
            archive = next(folder.glob(f"{name}_*.deb"))
            subprocess.run(["dpkg", "-x", archive.name, "."], cwd=folder, check=True)
            (folder / ".done").touch()
        folders[name] = folder
    for name, version in NPM.items():
        folder = cache / "packages" / name.replace("/", "_")
        if not (folder / ".done").exists():
            folder.mkdir(parents=True, exist_ok=True)
            subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=folder, check=True)
            with tarfile.open(next(folder.glob("*.tgz"))) as archive:
                archive.extractall(folder, filter="data")
            (folder / ".done").touch()
        folders[name] = folder / "package"
    return folders


def base_concept(code: str) -> str:
    """The concept a code point sequence belongs to: siblings of gender and hair share one.

    >>> base_concept("1f469-200d-1f373")
    '1f9d1-1f373'
    """
    parts = [p for p in code.lower().split("-") if p not in {"fe0f", "200d", "2640", "2642"}]
    return "-".join("1f9d1" if p in {"1f468", "1f469"} else p for p in parts)


def split_of(code: str) -> str:
    """``train``, ``val`` or ``test``: DSR-Emoji's rule, by hash of the base concept."""
    bucket = int(hashlib.sha256(base_concept(code).encode()).hexdigest(), 16) % 100
    return "train" if bucket < 60 else "val" if bucket < 70 else "test"


def skipped(path: str) -> bool:
    """True for smileys, faces, lettering and plain gradients."""
    return any(f in path for f in SKIPPED_FOLDERS) or bool(SKIPPED_WORDS.search(path))


def clean(text: str) -> str:
    """One line without file extensions, underscores and trailing numbers."""
    text = re.sub(r"\.(svg|png)$", "", text.strip(), flags=re.I)
    text = re.sub(r"[_\-]+", " ", text)
    text = re.sub(r"\b\d+\b", " ", text)
    return re.sub(r"\s+", " ", text).strip(" .,;")


def openclipart_texts(svg: Path, root: Path) -> list[str]:
    """Title, then the tags in one line, then the folder's name; untitled parts are dropped."""
    texts = []
    try:
        tree = ElementTree.parse(svg)
    except (ElementTree.ParseError, UnicodeError, ValueError):
        return []
    title, tags = "", []
    for node in tree.iter():
        tag = node.tag.rsplit("}", 1)[-1] if isinstance(node.tag, str) else ""
        if tag == "Work":
            for child in node:
                name = child.tag.rsplit("}", 1)[-1]
                if name == "title" and child.text:
                    title = clean(child.text)
                if name == "subject":
                    tags = [clean(li.text) for li in child.iter() if li.text and li.text.strip()]
            break
    if len(title) > 2:
        texts.append(title)
    if tags:
        texts.append(", ".join(dict.fromkeys(t for t in tags if t)))
    folder = svg.parent.relative_to(root).as_posix()
    if folder not in {".", "unsorted"}:
        texts.append(clean(folder.rsplit("/", 1)[-1]))
    return texts


def list_pictures(folders: dict[str, Path]) -> tuple[list[Picture], dict[str, int]]:
    """Every admissible picture in a fixed order, and what was left out, by reason."""
    found: list[Picture] = []
    counts: dict[str, int] = {}

    def count(reason: str) -> None:
        counts[reason] = counts.get(reason, 0) + 1

    root = folders["openclipart-svg"] / "usr/share/openclipart/svg"
    for svg in sorted(root.rglob("*.svg")):
        if skipped(svg.as_posix()):
            count("openclipart: smiley, lettering or gradient")
        elif svg.stat().st_size > MAX_SVG_BYTES:
            count("openclipart: larger than 1.5 MB")
        else:
            found.append(Picture(str(svg), "openclipart", openclipart_texts(svg, root)))

    root = folders["tuxpaint-stamps-default"] / "usr/share/tuxpaint/stamps"
    for path in sorted(p for p in root.rglob("*") if p.suffix in {".png", ".svg"}):
        if skipped(path.as_posix()):
            count("tuxpaint: face or lettering")
            continue
        note = path.with_suffix(".txt")
        lines = note.read_text("utf-8", "replace").splitlines() if note.exists() else []
        texts = [clean(lines[0])] if lines and "=" not in lines[0] else []
        texts.append(clean(path.stem))
        found.append(Picture(str(path), "tuxpaint", [t for t in texts if len(t) > 1]))

    names = json.loads((folders["openmoji"] / "data/openmoji.json").read_text())
    known = {n["hexcode"].lower(): n for n in names}
    for path in sorted((folders["@lobehub/fluent-emoji-3d"] / "assets").glob("*.webp")):
        entry = known.get(path.stem) or known.get(path.stem.replace("-fe0f", ""))
        if entry is None or entry.get("skintone") or entry["group"] == "flags":
            count("fluent: skin tone, flag or unknown")
        elif split_of(path.stem) != "train":
            count("fluent: validation or test concept")
        else:
            texts = [entry["annotation"], entry.get("tags", "").replace(",", ", ")]
            found.append(Picture(str(path), "fluent", [t for t in texts if t]))
    return found, counts
