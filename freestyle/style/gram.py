"""Gram matrices of feature maps, and the vectors made from them.

Source: FreestyleRet (arXiv 2312.02428, section 3.2): the Gram matrix of a shallow VGG feature map
is a picture's style, after Gatys et al. (arXiv 1508.06576). Divided by the number of positions
here, so that a texture has the same Gram matrix at every size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def gram_matrix(features: Tensor) -> Tensor:
    """Channel co-activations of a feature map, averaged over its positions.

    Computed in float32 whatever the input's type and under autocast too: a sum of squares over
    thousands of positions overflows half precision.

    Args:
        features: ``(B, C, H, W)`` of any floating type.

    Returns:
        ``(B, C, C)`` float32, exactly symmetric, positive semi-definite up to rounding.

    Example:
        >>> gram_matrix(torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]]))
        tensor([[[2.5000, 1.5000],
                 [1.5000, 4.5000]]])
    """
    with torch.autocast(features.device.type, enabled=False):
        flat = features.float().flatten(2)  # (B, C, H*W)
        gram = flat @ flat.transpose(1, 2) / flat.shape[2]  # (B, C, C)
        return (gram + gram.transpose(1, 2)) / 2


def upper_triangle(gram: Tensor) -> Tensor:
    """Symmetric matrices as vectors of the same length: nothing counted twice, nothing lost.

    Entries off the diagonal are multiplied by sqrt(2), so that dot products and Euclidean norms of
    the vectors equal Frobenius products and norms of the matrices.

    Args:
        gram: ``(B, C, C)``, symmetric.

    Returns:
        ``(B, C (C + 1) / 2)``, row by row from the diagonal to the right.

    Example:
        >>> upper_triangle(torch.tensor([[[2.0, 1.0], [1.0, 3.0]]]))
        tensor([[2.0000, 1.4142, 3.0000]])
    """
    rows, columns = torch.triu_indices(*gram.shape[1:], device=gram.device)
    factor = torch.where(rows == columns, 1.0, math.sqrt(2.0)).to(gram.dtype)
    return gram[:, rows, columns] * factor


def style_code(maps: Sequence[Tensor], power: float = 1.0, normalise: bool = True) -> Tensor:
    """The style code of feature maps: their Gram matrices as one vector per picture.

    Args:
        maps: One ``(B, C_i, H_i, W_i)`` per tap.
        power: Exponent on the entries' magnitudes, signs kept; below 1 it tames the heavy tail
            of a few strong channels. 1 leaves the Gram matrix as it is.
        normalise: Scale each tap's part to unit Euclidean norm, so that no tap drowns another.

    Returns:
        ``(B, sum_i C_i (C_i + 1) / 2)`` float32. A map of zeros gives zeros, never NaN.
    """
    parts = []
    for features in maps:
        gram = gram_matrix(features)  # (B, C, C)
        if power != 1.0:
            gram = gram.sign() * gram.abs().pow(power)
        part = upper_triangle(gram)  # (B, C (C + 1) / 2)
        parts.append(F.normalize(part, dim=1) if normalise else part)
    return torch.cat(parts, dim=1)
