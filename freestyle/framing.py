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
    if framing == "whole":
        return pixels
    return frame_at_once(pixels) if torch.compiler.is_exporting() else frame(pixels)


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


def frame_at_once(pixels: Tensor) -> Tensor:
    """:func:`frame` as one graph, without a branch or a shape that depends on the pictures.

    Cutting a square out of ground and resizing it are both linear in the rows and in the columns:
    with the ground subtracted, the result is ``ground + R (picture - ground) C^T``, where R and C
    hold the resize's triangular weights and nothing outside the picture is weighed.

    Args:
        pixels: RGB in [0, 1], ``(B, 3, S, S)``.

    Returns:
        ``(B, 3, S, S)`` in [0, 1], equal to :func:`frame` up to rounding.
    """
    side = pixels.shape[-1]
    edges = (pixels[:, :, 0], pixels[:, :, -1], pixels[:, :, :, 0], pixels[:, :, :, -1])
    border = torch.cat(edges, dim=2)  # (B, 3, 4 S)
    middle = (4 * side - 1) // 2  # where Tensor.median looks
    ground = border.sort(dim=2).values[:, :, middle, None, None]  # (B, 3, 1, 1)
    off = (border - ground[:, :, :, 0]).abs().amax(dim=1) > TOLERANCE  # (B, 4 S)
    content = (pixels - ground).abs().amax(dim=1) > TOLERANCE  # (B, S, S)
    place = torch.arange(side, device=pixels.device)
    ends = []
    for present in (content.any(dim=2), content.any(dim=1)):  # rows, columns: (B, S)
        first = torch.where(present, place, side).amin(dim=1)
        last = torch.where(present, place, -1).amax(dim=1)
        ends.append((first, last + 1))
    sizes = [int(extent * (1 + 2 * MARGIN)) + 1 for extent in range(side + 1)]
    extent = torch.stack([end - begin for begin, end in ends]).amax(dim=0).clamp(min=0)
    size = torch.tensor(sizes, device=pixels.device)[extent]  # (B,)
    most = max(sizes)
    rows, columns = (_resizing(begin + end, size, side, most) for begin, end in ends)  # (B, S, S)
    cut = rows[:, None] @ (pixels - ground) @ columns[:, None].transpose(2, 3) + ground
    even = off.sum(dim=1) <= UNEVEN * border.shape[2]
    keeps = even & content.flatten(1).any(dim=1)  # (B,)
    return torch.where(keeps[:, None, None, None], cut.clamp(0, 1), pixels)


def _resizing(ends: Tensor, size: Tensor, side: int, most: int) -> Tensor:
    """Weights ``(B, S, S)`` of output pixels (rows) on the picture's (columns), along one axis.

    Args:
        ends: First pixel of the content plus the one behind its last, ``(B,)``.
        size: Side of the square around it, ``(B,)``.
        side: S.
        most: Largest ``size`` there can be.
    """
    begin = torch.div(ends - size, 2, rounding_mode="trunc")[:, None, None]
    size = size[:, None, None]
    scale = size / side  # (B, 1, 1) pixels of the square to one of the output
    place = torch.arange(side, device=ends.device)
    centre = scale * (place[:, None] + 0.5)  # (B, S, 1) in the square

    def weigh(inside: Tensor) -> Tensor:
        """The triangle of bilinear resizing, wider where it shrinks, at pixels of the square."""
        weights = (1 - (inside + 0.5 - centre).abs() / scale.clamp(min=1)).clamp(min=0)
        return weights * ((inside >= 0) & (inside < size))

    total = weigh(torch.arange(most, device=ends.device)).sum(dim=2, keepdim=True)
    return weigh(place - begin) / total
