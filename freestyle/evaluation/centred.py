"""Fitting the training-free control: mean embeddings by style."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from freestyle.datasets.records import RetrievalSplit
from freestyle.evaluation.embed import Embedder, Variant
from freestyle.frozen import frozen_key, remembered
from freestyle.model import FreestyleRet


@torch.no_grad()
def fit_style_centred(
    model: FreestyleRet, train: RetrievalSplit, styles: Sequence[str], **options
) -> None:
    """Fit a style-centred model on training queries: its space, then its mean embeddings.

    Args:
        model: Made with the ``style-centred`` settings.
        train: The training split.
        styles: Picture styles to fit on.
        **options: Of :class:`Embedder`.
    """
    from freestyle.baselines import fit_style_means
    from freestyle.style.build import fit_space

    frozen = FreestyleRet.from_encoder(model.config.encoder, encoder=model.encoder)
    embedder = Embedder({"frozen": Variant(frozen)}, **options)
    embedder.readers = {model.reader.tag: model.reader.to(embedder.device)}
    tag = model.reader.tag
    codes, embeddings = [], []
    for style in styles:
        queries = train.queries[style]
        own = embedder.style_codes(queries.sources, tag, f"Reading {style} style codes")
        key = frozen_key(
            "frozen", model.encoder.weights_tag, queries.sources, embedder.on_broken, 1, 0
        )
        rows = remembered(key, lambda queries=queries: embedder.frozen(queries))[0][0]  # (N, E)
        known = own.isfinite().all(dim=1)
        codes.append(own[known].float())
        embeddings.append(F.normalize(rows[known], dim=1))
    joined = torch.cat(codes)
    space = fit_space(model.config.style, joined, tag)
    model.space.load_state_dict(space.state_dict())
    fit_style_means(model.cpu(), torch.cat(embeddings), joined)
