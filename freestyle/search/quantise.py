"""Weights of an exported graph to 8 bits; activations are quantised as they come (dynamic).

Matrix products and embedding tables only, with a scale for each output channel. Convolutions stay
float32: their 8-bit form cost recall by the dozen of points and ran slower on CPUs than ONNX
Runtime's float one. Signed or unsigned, per channel or per matrix made a query or two of difference
on validation, no more; signed per channel was the fastest. On x86 CPUs without VNNI instructions
its products may saturate, so measure there (``benchmarks/export.py``). A range is taken over the
whole batch, so that in 8 bits a row depends a little on its neighbours.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = ("MatMul", "Gemm", "Gather")


def quantise(path: Path, target: Path) -> None:
    """Write an 8-bit copy of a graph.

    Args:
        path: ONNX file, its weights inside or in ``<name>.data`` beside it.
        target: Where to.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    large = path.with_name(f"{path.name}.data").exists()
    with tempfile.TemporaryDirectory(dir=target.parent) as folder, _quiet():
        folded = Path(folder) / path.name  # transposed weights become constants of their own
        quant_pre_process(
            path,
            folded,
            skip_symbolic_shape=True,
            save_as_external_data=large,
            all_tensors_to_one_file=large,
            external_data_location=f"{folded.name}.data" if large else None,
        )
        quantize_dynamic(
            folded,
            target,
            op_types_to_quantize=list(KINDS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """The quantiser advises steps that are done already, or not wanted."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
