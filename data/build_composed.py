"""Build the composed benchmark over DSR-Emoji: a picture, a text that changes it, what is wanted.

    python data/build_composed.py            # data/emoji_composed/{train,val,test}.json
    python data/build_composed.py --check    # compares instead of writing

No pair is picked by hand. Within a split, a concept and another one are a pair when

- they share the subgroup or the base concept, and at least one word of their names (or the base),
- neither name has more than three words that the other lacks,

and the modification is what the target's name has more, in its order ("man", "with sunglasses"),
or "without ..." where it only has less. If a reference's modification leads to several concepts,
all of them are targets. Each pair is asked once per reference style. The file holds names, not
pictures: those are DSR-Emoji's.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
STYLES = ("photo", "sketch", "art", "mosaic", "colour")
MOST_WORDS = 3
SPLITS = ("train", "val", "test")


@cache
def words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case, without quotation marks and other punctuation.

    >>> words("Japanese “here” button: man's")
    ('japanese', 'here', 'button', "man's")
    """
    plain = name.lower().replace("’", "'")
    return tuple(w.strip("'") for w in re.findall(r"[\w'#*+-]+", plain) if w.strip("'"))


def modification(reference: str, target: str) -> str | None:
    """What turns one name into the other, or None where too much would.

    >>> modification("woman facepalming", "man facepalming")
    'man'
    >>> modification("smiling face", "smiling face with sunglasses")
    'with sunglasses'
    >>> modification("dotted line face", "face")
    'without dotted line'
    >>> modification("face", "face") is None
    True
    """
    before, after = words(reference), words(target)
    more = [w for w in after if w not in before]
    less = [w for w in before if w not in after]
    if max(len(more), len(less)) > MOST_WORDS or not (more or less):
        return None
    return " ".join(more) if more else "without " + " ".join(less)


def related(a: dict, b: dict) -> bool:
    """Whether two concepts may be a pair."""
    if a["base"] == b["base"]:
        return True
    if a["subgroup"] != b["subgroup"]:
        return False
    return not set(words(a["annotation"])).isdisjoint(words(b["annotation"]))


def queries(concepts: Sequence[dict]) -> list[dict]:
    """All pairs of one split, in the order of their stems."""
    found: dict[tuple[str, str], list[str]] = {}
    ordered = sorted(concepts, key=lambda c: c["stem"])
    for a in ordered:
        for b in ordered:
            if a["stem"] == b["stem"] or not related(a, b):
                continue
            text = modification(a["annotation"], b["annotation"])
            if text is not None:
                found.setdefault((a["stem"], text), []).append(b["stem"])
    return [
        {"id": f"{stem}:{text.replace(' ', '-')}", "reference": stem, "text": text, "targets": to}
        for (stem, text), to in found.items()
    ]


def document(split: str, concepts: Sequence[dict]) -> str:
    """The file of one split, one query a line."""
    rows = queries([c for c in concepts if c["split"] == split])
    lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
    head = {"images": "../emoji", "split": split, "styles": list(STYLES)}
    start = json.dumps(head, ensure_ascii=False)[:-1]
    return f'{start}, "queries": [\n{lines}\n]}}\n'


def main(args: Sequence[str] | None = None) -> int:
    """Write the three files, or compare them."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--emoji", default=HERE / "emoji", type=Path, help="folder of DSR-Emoji")
    p.add_argument("--out", default=HERE / "emoji_composed", type=Path)
    p.add_argument("--check", action="store_true", help="compare with what is there")
    options = p.parse_args(args)
    concepts = json.loads((options.emoji / "concepts.json").read_text(encoding="utf-8"))
    options.out.mkdir(parents=True, exist_ok=True)
    wrong = 0
    for split in SPLITS:
        path, text = options.out / f"{split}.json", document(split, concepts)
        if options.check:
            same = path.is_file() and path.read_text(encoding="utf-8") == text
            print(f"{path}: {'same' if same else 'DIFFERENT'}")
            wrong += not same
        else:
            path.write_text(text, encoding="utf-8")
            count = len(json.loads(text)["queries"])
            print(f"{path}: {count} pairs, {count * len(STYLES)} queries")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
