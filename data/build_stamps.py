#!/usr/bin/env python3
"""Build the photos of DSR-Stamps: cut-out photographs of things, with captions, from Debian.

Source: the Debian package ``tuxpaint-stamps-default`` (GPL-2), the stamps of the children's drawing
program Tux Paint. Of its stamps, the photographs are kept, drawings and signs are left out; each is
laid on white and fitted into a square.

Run ``python data/build_stamps.py``: it fetches the package with ``apt-get download``, which needs
no rights and installs nothing. Or give ``--stamps /usr/share/tuxpaint/stamps`` where it is
installed. The query styles are then made with the command in ``data/stamps/README.md``.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PACKAGE = "tuxpaint-stamps-default"
SIDE, MARGIN, SMALLEST = 256, 8, 80  # pixels; stamps smaller than SMALLEST are left out
# Folders of drawings, signs and symbols; further drawings stand among the photographs.
DRAWN_FOLDERS = {
    "cartoon",
    "symbols",
    "flags",
    "roadsigns",
    "hats",
    "easter",
    "hanukkah",
    "newyears",
    "ammunition",
    "body_parts",
}
DRAWN_IN = {
    "clothes": ("t_",),
    "seasonal/halloween": ("bat", "black", "ghost", "jack", "skull", "spider"),
}
DRAWN = {
    "hedgehog",
    "button",
    "pizza",
    "tooth",
    "eye",
    "cylinder",
    "Santa",
    "bow",
    "candy_cane",
    "hard_candy",
    "lamp",
    "santahat",
    "star",
    "stocking",
    "tree",
    "xmas_tp_bulb",
    "holly_leaves",
    "Candy_cane_perspective",
    "lightningbolt",
    "explosion",
    "fire",
    "inukshuk-outline",
    "rugby_goal_posts",
    "0_sun",
}


class BuildError(Exception):
    """Bad input; the message is one sentence that names the remedy."""


def fetch(folder: Path) -> Path:
    """Download and unpack the package below ``folder``; return its stamps.

    Raises:
        BuildError: There is no Debian package manager, or it cannot fetch the package.
    """
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise BuildError(
            f"apt-get is not here: unpack Debian's {PACKAGE} and give its stamps with --stamps."
        )
    done = subprocess.run(
        ["apt-get", "download", PACKAGE], cwd=folder, capture_output=True, text=True, check=False
    )
    packages = sorted(folder.glob("*.deb"))
    if done.returncode or not packages:
        raise BuildError(
            f"apt-get could not download {PACKAGE}: run 'apt-get update', or give --stamps."
        )
    subprocess.run(["dpkg-deb", "-x", packages[0].name, "unpacked"], cwd=folder, check=True)
    return folder / "unpacked/usr/share/tuxpaint/stamps"


def is_photograph(path: Path, root: Path) -> bool:
    """Whether a stamp is one of the photographs."""
    place = path.parent.relative_to(root)
    if path.stem.endswith(("_mirror", "_flip")) or DRAWN_FOLDERS & set(place.parts):
        return False
    starts = DRAWN_IN.get(place.as_posix(), ())
    return path.stem not in DRAWN and not (starts and path.stem.startswith(starts))


def caption(path: Path) -> str:
    """The English description: the first line of the text beside a stamp."""
    try:
        return path.with_suffix(".txt").read_text("utf-8").partition("\n")[0].strip()
    except OSError:
        return ""


def on_white(path: Path) -> Image.Image | None:
    """A stamp in a white square; None where it is too small."""
    stamp = Image.open(path).convert("RGBA")
    box = stamp.getchannel("A").getbbox()
    if box is None or max(box[2] - box[0], box[3] - box[1]) < SMALLEST:
        return None
    stamp = stamp.crop(box)
    white = Image.new("RGBA", stamp.size, "white")
    white.alpha_composite(stamp)
    factor = (SIDE - 2 * MARGIN) / max(stamp.size)
    size = tuple(max(1, round(side * factor)) for side in stamp.size)
    fitted = white.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(fitted, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square


def build(stamps: Path, out: Path) -> int:
    """Write ``out/<category>/<name>.png`` and ``.txt``; return how many.

    Raises:
        BuildError: ``stamps`` holds no stamps.
    """
    found = sorted(path for path in stamps.rglob("*.png") if is_photograph(path, stamps))
    count = 0
    for path in found:
        text, picture = caption(path), on_white(path)
        if not text or picture is None:
            continue
        category = path.relative_to(stamps).parts[0]
        target = out / category / path.name
        if target.exists():
            raise BuildError(f"{target} exists: give an empty folder with --out.")
        target.parent.mkdir(parents=True, exist_ok=True)
        picture.save(target)
        target.with_suffix(".txt").write_text(text + "\n", "utf-8")
        count += 1
    if not count:
        raise BuildError(f"{stamps} holds no stamps: give .../share/tuxpaint/stamps.")
    return count


def main() -> int:
    """Build the photos."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("data/stamps/photos"))
    parser.add_argument("--stamps", type=Path, help="stamps of an installed or unpacked package")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            stamps = options.stamps or fetch(Path(folder))
            print(f"{build(stamps, options.out)} photographs in {options.out}")
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
