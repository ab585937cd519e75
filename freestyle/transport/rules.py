"""The composer that needs no language model: captions of similar training photos, changed by rule.

For a reference it takes the captions of the nearest training photos, or the nearest captions, and
merges each with the modification. Which word of a caption a modification replaces it reads from the
bank itself: "man" stands where "woman" stands in other captions ("man golfing", "woman golfing").
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from freestyle.datasets.composed import ComposedQuery
from freestyle.errors import UserError
from freestyle.transport.captions import Composition
from freestyle.transport.sets import SetEncoder
from freestyle.transport.views import Views

WITH = ("with", "in", "on", "without", "from", "of", "for", "behind")


class RuleComposer:
    """Nearest captions of a bank, merged with the modification.

    Args:
        encoder: Embeds references and bank.
        captions: N captions of the *training* split.
        photos: Their N photos; where given, nearness is that of reference and photo, otherwise of
            reference and caption.
        count: K, captions per query.
    """

    name = "rules"

    def __init__(
        self,
        encoder: SetEncoder,
        captions: Sequence[str],
        photos: Sequence | None = None,
        *,
        count: int = 5,
    ) -> None:
        if not captions:
            raise UserError("the caption bank is empty: give captions of the training split")
        if count < 1:
            raise UserError(f"composer count is {count}: use 1 or more")
        self.encoder, self.captions, self.count = encoder, list(captions), count
        self.photos = photos
        self.rules = substitutions(self.captions)
        self._bank: Tensor | None = None

    def compose(self, queries: Sequence[ComposedQuery]) -> dict[str, Composition]:
        """Captions by the reference's own look and the modification's words."""
        references = list(dict.fromkeys(query.reference for query in queries))
        place = {reference: row for row, reference in enumerate(references)}
        near = self.nearest(self.encoder.queries(references).atoms[:, 0])
        found = {}
        for query in queries:
            own = [self.captions[i] for i in near[place[query.reference]].tolist()]
            found[query.id] = self.merged(own, query.text)
        return found

    def merged(self, captions: Sequence[str], text: str) -> Composition:
        """The composition of one query from its reference's likely captions, best first."""
        different = list(dict.fromkeys(captions))
        target = list(dict.fromkeys(merge(caption, text, self.rules) for caption in different))
        removed = without(text)
        preserved = [rest for c in different if (rest := remainder(c, text, self.rules))]
        return Composition(
            tuple(target[: self.count]),
            text,
            tuple(different[: self.count]),
            desired=() if removed else (text,),
            preserved=tuple(dict.fromkeys(preserved))[: self.count],
            forbidden=(removed,) if removed else (),
        )

    def nearest(self, references: Tensor) -> Tensor:
        """Positions of the nearest entries of the bank ``(Q, 2 K)``, best first."""
        if self._bank is None:
            if self.photos is not None:
                whole = SetEncoder(self.encoder.model, Views("whole"), cache=self.encoder.cache)
                self._bank = whole.photos(self.photos).atoms[:, 0]
            else:
                self._bank = self.encoder.finish_texts(self.encoder.texts(self.captions))
        width = min(references.shape[1], self._bank.shape[1])
        scores = references.float()[:, :width] @ self._bank[:, :width].T
        most = min(2 * self.count, len(self.captions))
        return torch.topk(scores, most, dim=1).indices


def words(text: str) -> list[str]:
    """Words in lower case, punctuation dropped.

    >>> words("Kiss: woman, man")
    ['kiss', 'woman', 'man']
    """
    return re.findall(r"[\w'’#*+-]+", text.lower())


def substitutions(captions: Sequence[str]) -> dict[str, set[str]]:
    """Words that stand in each other's place in captions that are otherwise equal.

    >>> sorted(substitutions(["man golfing", "woman golfing", "red car"])["man"])
    ['woman']
    """
    frames: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for caption in captions:
        parts = words(caption)
        for i, word in enumerate(parts):
            if len(parts) > 1:
                frames[(*parts[:i], "", *parts[i + 1 :])].add(word)
    found: dict[str, set[str]] = defaultdict(set)
    for alike in frames.values():
        for word in alike:
            found[word] |= alike - {word}
    return found


def without(text: str) -> str:
    """What a modification takes away, or nothing.

    >>> without("without dotted line"), without("with a hat")
    ('dotted line', '')
    """
    match = re.fullmatch(r"\s*(?:without|no|remove(?: the)?)\s+(.+)", text, re.I)
    return match[1] if match else ""


def remainder(caption: str, text: str, rules: dict[str, set[str]]) -> str:
    """What of a caption a modification leaves: words it neither removes nor replaces.

    >>> remainder("woman golfing", "man", {"woman": {"man"}})
    'golfing'
    """
    gone = set(words(without(text)))
    for new in words(text):
        gone |= {old for old in words(caption) if new in rules.get(old, ())}
    return " ".join(w for w in words(caption) if w not in gone)


def merge(caption: str, text: str, rules: dict[str, set[str]]) -> str:
    """One caption of the target.

    >>> rules = substitutions(["man golfing", "woman golfing"])
    >>> merge("woman running", "man", rules)
    'man running'
    >>> merge("smiling face", "with sunglasses", rules)
    'smiling face with sunglasses'
    >>> merge("dotted line face", "without dotted line", rules)
    'face'
    >>> merge("house", "old", rules)
    'old house'
    """
    parts = words(caption)
    removed = set(words(without(text)))
    if removed:
        return " ".join(w for w in parts if w not in removed) or caption
    new = words(text)
    if not new or not set(new) - set(parts):
        return caption
    replaced = False
    for word in new:
        for i, old in enumerate(parts):
            if word in rules.get(old, ()) and word not in parts:
                parts[i], replaced = word, True
                break
    if new[0] in WITH and not replaced:
        return " ".join([*parts, *new])
    rest = [w for w in new if w not in parts and not (replaced and w in WITH)]
    return " ".join([*rest, *parts])
