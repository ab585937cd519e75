"""The frozen half of evaluated pictures: what several models and variants share.

A model needs patch tokens where something is trained inside the tower, and frozen embeddings where
nothing is, of each framing of the picture that it looks at.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from freestyle.framing import view
from freestyle.frozen import FrozenRows, frozen_key, is_remembered, remembered

if TYPE_CHECKING:
    from freestyle.evaluation.embed import Embedder
    from freestyle.frozen import Pictures
    from freestyle.model import FreestyleRet

Need = tuple[str, str]  # "tokens" or "embedding", and a framing
Frozen = dict[Need, Tensor]


def needs_of(model: FreestyleRet) -> list[Need]:
    """What a model's :meth:`query_from` starts from."""
    kind = "tokens" if model.uses_tokens else "embedding"
    return [(kind, framing) for framing in model.framings]


def features_of(model: FreestyleRet, frozen: Frozen) -> Tensor:
    """A model's features, as :meth:`FreestyleRet.prepare` gives them, from what is shared."""
    return torch.cat([frozen[need] for need in needs_of(model)], dim=-1)


def read(model: FreestyleRet, pixels: Tensor, needs: Sequence[Need]) -> Frozen:
    """Compute what is needed from pixels ``(B, 3, S, S)``; any model of the encoder will do."""
    encoder, found = model.encoder, {}
    for framing in dict.fromkeys(framing for _, framing in needs):
        tokens = encoder.patch_tokens(view(pixels, framing))
        found["tokens", framing] = tokens
        if ("embedding", framing) in needs:
            found["embedding", framing] = encoder.pool(encoder.run_blocks(tokens))
    return {need: found[need] for need in needs}


def kept(
    embedder: Embedder, pictures: Pictures, needs: Sequence[Need], what: str
) -> dict[Need, FrozenRows]:
    """The same for all pictures, kept while the command runs; pictures are read once.

    Args:
        embedder: Its encoder, device and batches.
        pictures: What to read.
        needs: What is needed; embeddings are made from the tokens that are kept.
        what: Names the pictures on progress bars.

    Returns:
        Rows ``(N, ...)`` under ``value``, and which files could be read.
    """
    encoder = embedder.encoder
    framings = list(dict.fromkeys(framing for _, framing in needs))

    def key(kind: str, framing: str) -> tuple:
        tag = encoder.weights_tag + pictures.tag
        return frozen_key(f"evaluated {kind} {framing}", tag, pictures.paths, embedder.on_broken)

    missing = [framing for framing in framings if not is_remembered(key("tokens", framing))]
    if missing:
        rows = embedder.run(
            lambda pixels, _: {name: encoder.patch_tokens(view(pixels, name)) for name in missing},
            pictures,
            f"Reading {what}",
        )
        for name in missing:
            part = FrozenRows({"value": rows[name]}, rows.readable)
            remembered(key("tokens", name), lambda part=part: part)

    def embedded(framing: str) -> FrozenRows:
        tokens = remembered(key("tokens", framing), FrozenRows)
        parts = [
            encoder.pool(encoder.run_blocks(part.to(embedder.device))).cpu()
            for part in tokens["value"].split(embedder.batch_size)
        ]
        return FrozenRows({"value": torch.cat(parts)}, tokens.readable)

    found = {}
    for kind, framing in needs:
        make = FrozenRows if kind == "tokens" else lambda framing=framing: embedded(framing)
        found[kind, framing] = remembered(key(kind, framing), make)
    return found
