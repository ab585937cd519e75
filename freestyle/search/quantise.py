"""Weights of an exported graph to 8 bits, activations quantised as they come (dynamic).

Matrix products and embedding tables only, one scale per output channel. Convolutions stay float32:
ONNX Runtime's 8-bit ones are slower on CPUs than its float ones, and the style reader's Gram
matrices and the trunk's first maps suffer most. Weights are unsigned, since the signed products of
CPUs without VNNI saturate at 16 bits. ``benchmarks/export.py`` measures what recall it costs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

KINDS = ("MatMul", "Gemm", "Gather")


def quantise(
    path: Path,
    target: Path,
    *,
    kinds: Sequence[str] = KINDS,
    per_channel: bool = True,
    signed: bool = False,
    leave_out: Sequence[str] = (),
) -> None:
    """Write an 8-bit copy of a graph.

    Args:
        path: ONNX file.
        target: Where to.
        kinds: Operators whose weights become 8 bits.
        per_channel: A scale for each output channel, instead of one for each matrix.
        signed: Signed weights.
        leave_out: Nodes that stay as they are.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a step for graphs of convolutions
    try:
        quantize_dynamic(
            path,
            target,
            op_types_to_quantize=list(kinds),
            per_channel=per_channel,
            weight_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            nodes_to_exclude=list(leave_out),
            use_external_data_format=path.with_name(path.name + ".data").exists(),
        )
    finally:
        root.setLevel(level)
