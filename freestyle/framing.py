"""Framing: a query picture cut to its content, so that a drawing's margins say nothing.

A sketch on a large sheet and the same sketch cut close are the same query, but a frozen encoder
embeds them differently. A picture on even ground is cut to the square around what differs from the
ground; a picture without even ground, such as a photograph, stays as it is. Only queries are
framed: photos of the gallery pass as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FRAMINGS = {"whole": ("whole",), "framed": ("framed",), "both": ("whole", "framed")}
MARGIN = 0.05  # of the content's longer side, left on each side
TOLERANCE = 0.08  # of a channel in [0, 1], by which content differs from the ground
UNEVEN = 0.25  # share of border pixels off the ground from which it is none


def view(pixels: Tensor, framing: str) -> Tensor:
    """Pictures as they are (``whole``) or cut to their content (``framed``)."""
    return pixels if framing == "whole" else frame(pixels)


def frame(pixels: Tensor) -> Tensor:
    """Cut pictures to their content.

    Args:
        pixels: RGB in [0, 1], ``(B, 3, S, S)``.

    Returns:
        ``(B, 3, S, S)`` in [0, 1]; each picture depends on itself alone.
    """
    return torch.stack([_framed(picture) for picture in pixels])


def _framed(picture: Tensor) -> Tensor:
    """One picture ``(3, S, S)``."""
    side = picture.shape[-1]
    edges = (picture[:, 0], picture[:, -1], picture[:, :, 0], picture[:, :, -1])
    border = torch.cat(edges, dim=1)  # (3, 4 S)
    ground = border.median(dim=1).values[:, None]  # (3, 1)
    off = (border - ground).abs().amax(dim=0) > TOLERANCE
    content = (picture - ground[:, :, None]).abs().amax(dim=0) > TOLERANCE  # (S, S)
    if off.float().mean() > UNEVEN or not content.any():
        return picture
    rows, columns = content.any(dim=1).nonzero(), content.any(dim=0).nonzero()
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    left, right = int(columns[0]), int(columns[-1]) + 1
    size = int(max(bottom - top, right - left) * (1 + 2 * MARGIN)) + 1
    top, left = int((top + bottom - size) / 2), int((left + right - size) / 2)
    square = ground[:, :, None].expand(3, size, size).clone()  # ground where it reaches outside
    up, down = max(top, 0), min(top + size, side)
    begin, end = max(left, 0), min(left + size, side)
    square[:, up - top : down - top, begin - left : end - left] = picture[:, up:down, begin:end]
    resized = F.interpolate(
        square[None], size=(side, side), mode="bilinear", align_corners=False, antialias=True
    )
    return resized[0].clamp(0, 1)
