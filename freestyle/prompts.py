"""Style-initialised prompt tokens and how they pass through a frozen image tower.

FreestyleRet (arXiv 2312.02428, section 3.3): in every layer of the frozen tower, n tokens stand
between the CLS token and the patches, ``[cls, _, patches] = L_i([cls, P_i, patches])``; shallow
layers' tokens start from the style ``s``, deep layers' from the Gram code ``g``. The controls,
visual prompt tuning (VPT, arXiv 2203.12119), are the same module fed with a learned constant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from freestyle.config import PromptConfig
from freestyle.errors import UserError


class TokenMaker(nn.Module):
    """One layer's tokens: a learned constant plus a function of the query's code.

    Args:
        n_tokens: Tokens made, n.
        width: Token width D.
        code_dim: Width of the code, or 0 for a constant (no function).
        hidden: Hidden width of the function; 0 makes it linear.
    """

    def __init__(self, n_tokens: int, width: int, code_dim: int, hidden: int) -> None:
        super().__init__()
        self.n_tokens, self.width = n_tokens, width
        self.constant = nn.Parameter(torch.empty(n_tokens, width))
        # VPT's range: uniform with the variance of a Xavier layer between patch and token.
        bound = (6.0 / (3 * 16 * 16 + width)) ** 0.5
        nn.init.uniform_(self.constant, -bound, bound)
        self.function: nn.Module | None = None
        if code_dim:
            last = nn.Linear(hidden or code_dim, n_tokens * width, bias=False)
            nn.init.normal_(last.weight, std=0.02)
            layers = [nn.Linear(code_dim, hidden), nn.GELU()] if hidden else []
            self.function = nn.Sequential(*layers, last)

    def forward(self, code: Tensor | None, batch: int) -> Tensor:
        """Codes ``(B, d)`` (None for a constant) to tokens ``(B, n, D)``."""
        tokens = self.constant.expand(batch, -1, -1)  # (B, n, D)
        if self.function is not None:
            tokens = tokens + self.function(code).view(batch, self.n_tokens, self.width)
        return tokens


class PromptTokens(nn.Module):
    """The tokens of all layers, made from a query's Gram code and style.

    Args:
        config: Count, sources, split and scope.
        width: Token width D of the image tower.
        depth: Number of its blocks.
        code_dim: Width d of Gram code and style; may be 0 where nothing reads them.

    Raises:
        UserError: If the split lies outside the tower, or a source needs a code and has none.
    """

    def __init__(self, config: PromptConfig, width: int, depth: int, code_dim: int = 0) -> None:
        super().__init__()
        split = depth // 2 if config.split is None else config.split
        if not 0 <= split <= depth:
            raise UserError(f"prompts.split is {split}: use 0 to {depth}, the encoder's depth")
        if config.reads_style and not code_dim:
            raise UserError(
                "prompts read the query's style but no style reader is set: add style settings, "
                "or feed them 'learned'"
            )
        self.config = config
        self.sources = [config.shallow if i < split else config.deep for i in range(depth)]
        if config.scope == "input":
            self.sources = [config.shallow]
        self.makers = nn.ModuleList(
            nn.Identity()
            if source == "none"
            else TokenMaker(
                config.n_tokens,
                width,
                code_dim if source in ("style", "gram") else 0,
                config.hidden,
            )
            for source in self.sources
        )

    def forward(self, gram: Tensor | None, style: Tensor | None, batch: int) -> list[Tensor | None]:
        """Tokens per layer.

        Args:
            gram: Gram codes ``(B, d)``, or None where no layer reads them.
            style: Projections onto the style bases ``(B, d)``, or None likewise.
            batch: B, for constants.

        Returns:
            One ``(B, n, D)`` (or None) per layer; a list of one with scope ``input``.
        """
        code = {"gram": gram, "style": style, "learned": None}
        return [
            None if source == "none" else maker(code[source], batch)
            for source, maker in zip(self.sources, self.makers, strict=True)
        ]


def run_with_prompts(
    blocks: Sequence[Callable[[Tensor], Tensor]],
    tokens: Tensor,
    prompts: list[Tensor | None],
    n_prefix: int,
    scope: str = "deep",
) -> Tensor:
    """Pass patch tokens through frozen blocks with prompt tokens after the prefix.

    Args:
        blocks: The tower's blocks, each ``(B, T, D) -> (B, T, D)``.
        tokens: ``(B, P + N, D)`` with P = ``n_prefix``.
        prompts: Per layer ``(B, n, D)`` or None; one entry with scope ``input``.
        n_prefix: Tokens before the patches, such as CLS; may be 0.
        scope: ``deep`` puts each layer's own tokens in and takes them out; ``input`` carries the
            first layer's through all blocks.

    Returns:
        ``(B, P + N, D)``: the prompts' outputs are dropped.
    """
    if scope == "input":
        prompts = [prompts[0]] + [None] * (len(blocks) - 1)
    carried = 0
    for block, prompt in zip(blocks, prompts, strict=True):
        if prompt is not None:  # one copy takes the last layer's tokens out and puts these in
            tokens = _spliced(tokens, n_prefix, carried, prompt.to(tokens.dtype))
            carried = prompt.shape[1]
        elif carried and scope == "deep":
            tokens, carried = _spliced(tokens, n_prefix, carried), 0
        tokens = block(tokens)
    return _spliced(tokens, n_prefix, carried) if carried else tokens


def some_patches(tokens: Tensor, n_prefix: int, keep: float, generator: torch.Generator) -> Tensor:
    """Patch dropout (arXiv 2208.07220): a random share of each picture's patches, for training.

    Positions are in the tokens already, so blocks need not know; a step costs about ``keep`` of a
    whole one, and the tower learns to do with part of a drawing.

    Args:
        tokens: ``(B, P + N, D)`` with P = ``n_prefix``.
        n_prefix: Tokens that always stay.
        keep: Share of the patches that stay, in (0, 1].
        generator: CPU generator; the same state draws the same patches.

    Returns:
        ``(B, P + round(keep * N), D)``, at least one patch, in their order.
    """
    batch, total, width = tokens.shape
    patches = total - n_prefix
    count = max(1, round(keep * patches))
    if count == patches:
        return tokens
    drawn = torch.rand(batch, patches, generator=generator).argsort(dim=1)[:, :count]
    index = drawn.sort(dim=1).values.to(tokens.device) + n_prefix  # (B, count)
    kept = tokens.gather(1, index[:, :, None].expand(-1, -1, width))
    return torch.cat([tokens[:, :n_prefix], kept], dim=1)


def _spliced(tokens: Tensor, n_prefix: int, carried: int, prompt: Tensor | None = None) -> Tensor:
    """``(B, P + c + N, D)`` with its c carried tokens replaced by ``(B, n, D)``, or by none."""
    # split, not slices: its backward pass is one copy instead of a zero-filled one per part
    rest = tokens.shape[1] - n_prefix - carried
    head, _, tail = tokens.split([n_prefix, carried, rest], dim=1)
    return torch.cat([head, tail] if prompt is None else [head, prompt, tail], dim=1)
