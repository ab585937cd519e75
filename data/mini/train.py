"""Make freestyle-mini from packages alone: ``python data/mini/train.py``.

Steps: download the packages, render their pictures, cache what the frozen networks see in them,
distil the image tower, align the text head, train the small VGG, export float16 safetensors,
measure on DSR-Emoji. What is in the cache is skipped or resumed; only the text head, a few minutes,
starts again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import Tensor  # noqa: E402

OUTPUT = REPOSITORY / "freestyle" / "encoders" / "mini"


def export(state: dict[str, Tensor], path: Path) -> None:
    """Float16 safetensors, atomically."""
    temporary = path.with_suffix(".tmp")
    save_file({k: v.detach().half().contiguous() for k, v in state.items()}, temporary)
    with temporary.open("rb") as stream:
        os.fsync(stream.fileno())
    temporary.replace(path)


def measure(split: str) -> dict[str, dict[str, float]]:
    """Recall in % of the exported mini from the shipped pictures, by its public interface."""
    import emoji
    from PIL import Image

    from freestyle.encoders.mini import FreestyleMini

    encoder = FreestyleMini()

    def embed(style: str) -> Tensor:
        names = [emoji.ROOT / style / e["image"] for e in emoji.entries(split)]
        pixels = torch.stack([encoder.preprocess(Image.open(n)) for n in names])
        return torch.cat([encoder.encode_image(p) for p in pixels.split(64)])

    with torch.no_grad():
        gallery = embed("images")
        queries = {s: embed(s) for s in emoji.STYLES}
        queries["text"] = encoder.encode_text(emoji.captions(split))
    return {
        style: {f"R@{k}": round(emoji.recall(q, gallery, k), 1) for k in (1, 5, 10)}
        for style, q in queries.items()
    }


def main() -> None:
    """Run every step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=REPOSITORY / ".cache" / "mini")
    parser.add_argument("--views", type=int, default=4, help="augmented views of each picture")
    parser.add_argument("--only", choices=["mini", "vgg", "measure"], help="one part of the work")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    import distil
    import pictures
    import sources
    import teachers
    import vgg
    import words

    if args.only != "measure":
        found, counts = sources.list_pictures(sources.fetch(args.cache))
        pixels, kept = pictures.render_all(found, counts, args.cache)
        print(len(kept), "pictures", dict(Counter(p.source for p in kept)), "left out", counts)
        teachers.cache_views(pixels, args.views, args.cache, device)
    if args.only in (None, "mini"):
        tower, space = distil.distil(args.cache, distil.Settings(), device)
        trunk = teachers.folded_trunk(teachers.load_lite(0))
        images = words.picture_embeddings(tower, trunk, args.cache)
        settings = words.TextSettings()
        head = words.align(words.pairs(kept, images, space, args.cache, settings), settings)
        parts = {"trunk": trunk, "tower": tower, "text_head": head}
        state = {f"{k}.{n}": v for k, m in parts.items() for n, v in m.state_dict().items()}
        export(state, OUTPUT / "mini.safetensors")
    if args.only in (None, "vgg"):
        export(vgg.train_vgg(np.asarray(pixels), args.cache), OUTPUT / "vgg.safetensors")
    print(json.dumps({split: measure(split) for split in ("val", "test")}, indent=1))


if __name__ == "__main__":
    main()
