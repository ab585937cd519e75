"""FreestyleRet: a frozen dual encoder whose image queries carry style-made prompt tokens.

A query picture's path is cut in two, so that the frozen half can be computed once and cached:

    features, codes = model.prepare(pixels)        # frozen: patch tokens and style codes
    embedding = model.query_from(features, codes)  # trained: prompts, blocks, query map

Query texts pass through the untouched encoder, and so do the photos of the gallery, unless
``config.gallery`` is ``prompted``: then a photo takes a query's path, with its own style code.
Source of the method: FreestyleRet (arXiv 2312.02428); the controls of :mod:`freestyle.baselines`
are the same class with other settings.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from freestyle.calibration import HubCalibration
from freestyle.config import FreestyleConfig
from freestyle.encoding import Encoding, StyleInput
from freestyle.framing import FRAMINGS, view
from freestyle.prompts import PromptTokens, run_with_prompts
from freestyle.query_map import QueryMap

if TYPE_CHECKING:
    from freestyle.encoders.base import DualEncoder
    from freestyle.style.reader import StyleReader
    from freestyle.style.space import StyleSpace
    from freestyle.tuning import TunedTower


class FreestyleRet(Encoding, nn.Module):
    """Frozen encoder + style reader + style space + prompt tokens (+ optional query map).

    Args:
        config: Settings; ``config.encoder`` names the encoder.
        encoder: A ready encoder instead of the one that ``config`` names.
        reader: A ready style reader instead of the one that ``config`` describes.
    """

    def __init__(
        self,
        config: FreestyleConfig,
        encoder: DualEncoder | None = None,
        reader: StyleReader | None = None,
    ) -> None:
        super().__init__()
        if encoder is None:
            from freestyle.encoders.factory import create

            encoder = create(config.encoder, revision=config.revision)
        self.config = config
        self.encoder = encoder
        self.reader: StyleReader | None = None
        self.space: StyleSpace | None = None
        if config.needs_style:
            from freestyle.style.build import build_reader, empty_space

            self.reader = reader if reader is not None else build_reader(config.style)
            self.space = empty_space(config.style, self.reader)
        self.prompts: PromptTokens | None = None
        self.text_prompts: nn.Parameter | None = None
        if config.prompts is not None:
            if config.prompts.has_tokens:
                self.prompts = PromptTokens(
                    config.prompts,
                    encoder.width,
                    encoder.depth,
                    self.space.dim if self.space is not None else 0,
                )
            if config.prompts.text_tokens:
                shape = (config.prompts.text_tokens, encoder.text_width)
                self.text_prompts = nn.Parameter(torch.randn(shape) * 0.02)
        self.tower: TunedTower | None = None
        if config.tower is not None:
            from freestyle.tuning import TunedTower

            code_dim = self.space.dim if self.space is not None else 0
            self.tower = TunedTower(encoder, config.tower, code_dim)
        self.query_map: QueryMap | None = None
        if config.query_map != "none":
            styled = config.query_map == "styled"
            self.query_map = QueryMap(
                encoder.embed_dim,
                self.space.dim if styled else 0,
                framings=len(self.framings),
            )
        self.calibration: HubCalibration | None = None
        if config.calibration is not None:
            gated = config.calibration.gate == "style"
            self.calibration = HubCalibration(
                config.calibration, encoder.embed_dim, self.space.dim if gated else 0
            )
        if config.centred:
            bases = config.style.n_bases
            self.register_buffer("style_means", torch.zeros(bases, encoder.embed_dim))

    # -- building, saving ------------------------------------------------------------------

    @classmethod
    def from_encoder(cls, name: str, **kwargs: Any) -> FreestyleRet:
        """The frozen, promptless model around an encoder: the zero-shot control."""
        return cls(FreestyleConfig(encoder=name), **kwargs)

    @classmethod
    def from_pretrained(cls, source: str | Path, **kwargs: Any) -> FreestyleRet:
        """Load a folder written by :meth:`save_pretrained`, or such a repository on the hub.

        Args:
            source: Folder, or hub id.
            **kwargs: ``encoder`` and ``revision`` of :func:`freestyle.pretrained.load`.

        Raises:
            UserError: If files are missing, corrupt, or do not fit each other.
        """
        from freestyle.pretrained import load

        return load(source, **kwargs)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors`` (nothing of the frozen networks)."""
        from freestyle.pretrained import save

        return save(self, folder)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Upload the folder of :meth:`save_pretrained` to the Hugging Face hub; returns its URL."""
        from freestyle.pretrained import push

        return push(self, repo_id, private=private, token=token)

    # -- the two halves of a query's path --------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the encoder's weights are."""
        return next(self.encoder.parameters()).device

    @property
    def uses_tokens(self) -> bool:
        """Whether :meth:`prepare` stops at patch tokens (else at the frozen embedding)."""
        return self.prompts is not None or self.tower is not None

    @property
    def framings(self) -> tuple[str, ...]:
        """How a query picture is cut before it is embedded, once for each."""
        return FRAMINGS[self.config.framing]

    @property
    def prompts_gallery(self) -> bool:
        """Whether photos take a query's path."""
        return self.config.gallery == "prompted"

    @torch.no_grad()
    def prepare(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """The frozen half of a query's path.

        Args:
            pixels: RGB in [0, 1], ``(B, 3, S, S)``.

        Returns:
            Features - patch tokens ``(B, P + N, D)`` with prompts, without them frozen embeddings
            ``(B, F * E)`` of F framings - and style codes ``(B, code_dim)`` of the whole pictures,
            or None where nothing reads them.
        """
        codes = self.reader(pixels) if self.reader is not None else None
        return self.frozen_features(pixels), codes

    @torch.no_grad()
    def frozen_features(self, pixels: Tensor) -> Tensor:
        """:meth:`prepare` without the style codes."""
        tokens = [self.encoder.patch_tokens(view(pixels, framing)) for framing in self.framings]
        if self.uses_tokens:
            return tokens[0]  # with tokens there is one framing
        rows = [self.encoder.pool(self.encoder.run_blocks(part)) for part in tokens]
        return torch.cat(rows, dim=1)

    def style_inputs(
        self, codes: Tensor | None, batch: int, style: StyleInput = "own"
    ) -> dict[str, Tensor | None]:
        """What tokens and gates are made from, by source.

        Args:
            codes: ``(B, code_dim)``, or None where nothing reads them.
            batch: B.
            style: As for :meth:`query_from`.

        Returns:
            ``gram`` and ``style``, each ``(B, d)`` or None.
        """
        if self.space is not None and style == "zero":
            zeros = self.space.mean.new_zeros(batch, self.space.dim)
            return {"gram": zeros, "style": zeros}
        if self.space is None or codes is None:
            return {"gram": None, "style": None}
        if style == "mean" or (self.config.prompts and self.config.prompts.codes == "mean"):
            codes = self.space.mean.to(codes).expand_as(codes)
        with torch.no_grad(), torch.autocast(codes.device.type, enabled=False):
            codes = codes.float()
            return {"gram": self.space.embed(codes), "style": self.space.project(codes)}

    def prompt_tokens(
        self, codes: Tensor | None, batch: int, style: StyleInput = "own"
    ) -> list[Tensor | None]:
        """Tokens per layer for style codes ``(B, code_dim)``: each ``(B, n, D)`` or None."""
        return self.prompts(**self.style_inputs(codes, batch, style), batch=batch)

    def query_from(
        self,
        features: Tensor,
        codes: Tensor | None = None,
        *,
        style: StyleInput = "own",
        use_map: bool = True,
    ) -> Tensor:
        """The trained half of a query's path.

        Args:
            features: From :meth:`prepare`.
            codes: From :meth:`prepare`.
            style: ``own``; ``mean`` puts the training mean in place of every code; ``zero`` feeds
                zeros to everything that reads the style. The last two are controls.
            use_map: Whether the query map, if there is one, is applied.

        Returns:
            Unit-norm float32 embeddings ``(B, E)``.
        """
        features = self.before_map(features, codes, style=style)
        return self.finish(features, codes, style=style, use_map=use_map)

    def before_map(
        self, features: Tensor, codes: Tensor | None = None, *, style: StyleInput = "own"
    ) -> Tensor:
        """:meth:`query_from` up to the query map: ``(B, F * E)``, not normalised."""
        if self.uses_tokens:
            inputs = self.style_inputs(codes, features.shape[0], style)
            blocks, scope = self.encoder.blocks, "deep"
            prompts: list[Tensor | None] = [None] * self.encoder.depth
            if self.tower is not None:
                blocks = self.tower.blocks(inputs.get(self.config.tower.gate))
            if self.prompts is not None:
                prompts, scope = (
                    self.prompts(**inputs, batch=features.shape[0]),
                    self.prompts.config.scope,
                )
            tokens = run_with_prompts(blocks, features, prompts, self.encoder.n_prefix, scope)
            features = self.encoder.pool(tokens)  # (B, E)
        if self.config.centred:
            features = F.normalize(features.float(), dim=-1)
            weights = self.space.weights(codes.float())  # (B, K)
            features = features - weights @ self.style_means  # (B, E)
        return features

    def finish(
        self,
        features: Tensor,
        codes: Tensor | None = None,
        *,
        style: StyleInput = "own",
        use_map: bool = True,
    ) -> Tensor:
        """The query map, where there is one, and unit norm: to float32 ``(B, E)``.

        Without the map the first framing, the whole picture where there are two, stands alone.
        """
        if self.query_map is not None and use_map:
            gram = None
            if self.config.query_map == "styled":
                gram = self.style_inputs(codes, features.shape[0], style)["gram"]
            features = self.query_map(features, gram)
        return F.normalize(features[:, : self.encoder.embed_dim].float(), dim=-1)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Names and tensors of what training moves: prompts, adapters, query map."""
        frozen = ("encoder.", "reader.", "space.")
        return {
            k: p
            for k, p in self.named_parameters()
            if not k.startswith(frozen) and (p.requires_grad or not k.startswith("tower."))
        }
