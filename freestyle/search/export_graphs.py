"""The query side of a model as two graphs, for torch.export and ONNX: pictures, and texts.

A picture's whole path is one graph: framings, style reader, prompt tokens or query map, and the
calibration's columns. Batches are of any size from 1; texts of any length that the tower takes.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from freestyle.errors import UserError
from freestyle.search.torch_encoder import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch.export import ExportedProgram

    from freestyle.model import FreestyleRet

ONE_FILE = 1_500_000_000  # bytes of weights; protobuf ends at 2 GiB
OPSET = 20
EXAMPLES = ["a red boat", "three small birds on a wire at night"]


class ImageGraph(nn.Module):
    """Pixels ``(B, 3, S, S)`` in [0, 1] to the outputs named in :attr:`outputs`."""

    def __init__(self, model: FreestyleRet) -> None:
        super().__init__()
        self.model = model
        own = model.calibration
        self.gated = own is not None and own.is_fitted and own.gate_weight.shape[1] > 0
        self.gated = self.gated and own.n_styles == len(model.config.styles)
        self.styled = model.space is not None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names, as :attr:`freestyle.search.exported.Manifest.outputs` tells them."""
        return (
            "rows",
            *(("shares",) if self.gated else ()),
            *(("places", "codes") if self.styled else ()),
        )

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """One batch of query pictures."""
        model = self.model
        features, codes = prepare(model, pixels)
        rows = model.complete_query(model.query_from(features, codes), codes)
        out = [rows.float()]
        if self.styled:
            gram = model.space.embed(codes)  # (B, d)
            if self.gated:
                own = model.style_inputs(codes, pixels.shape[0])["gram"]
                out.append(model.calibration.shares(own, pixels.shape[0]))
            out += [model.space.weights(codes), gram]
        return tuple(out)


class TextGraph(nn.Module):
    """Token ids and mask ``(B, T)`` to rows ``(B, E + C)``."""

    def __init__(self, model: FreestyleRet) -> None:
        super().__init__()
        self.model = model
        # loaded at the first text, and kept out of the encoder's modules: here it must be one
        self.tower = getattr(model.encoder, "text_tower", None)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """One batch of query texts."""
        embedded = self.model.encoder.embed_tokens(ids, mask, self.model.text_prompts)
        rows = F.normalize(embedded.float(), dim=-1)
        own = self.model.calibration
        return rows if own is None else own.extend_texts(rows)


def trace_images(graph: ImageGraph) -> ExportedProgram:
    """The image graph as an exported program with a batch of any size."""
    side = graph.model.encoder.image_size
    pixels = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    batch = torch.export.Dim("batch", min=1)
    return _trace(graph, {"pixels": pixels}, {"pixels": {0: batch}})


def trace_texts(graph: TextGraph, length: int) -> ExportedProgram:
    """The text graph as an exported program: any batch, texts of up to ``length`` tokens.

    Where the tokenizer pads every text to the full length, that length is fixed.
    """
    prompts, encoder = graph.model.text_prompts, graph.model.encoder
    count = 0 if prompts is None else len(prompts)
    ids, mask = encoder.tokenize(EXAMPLES, count)
    axes: dict[int, Any] = {0: torch.export.Dim("batch", min=1)}
    shortest, _ = encoder.tokenize(["a"], count)  # examples may fill a small tower by themselves
    if shortest.shape[1] < length:
        # the tracer takes 0 and 1 for special: 3 leave 2 behind the first (ONNX runs fewer as well)
        axes[1] = torch.export.Dim("tokens", min=3, max=length)
    return _trace(graph, {"ids": ids, "mask": mask}, {"ids": axes, "mask": axes})


def save_onnx(program: ExportedProgram, outputs: tuple[str, ...], path: Path) -> None:
    """Write a program as ONNX, its weights inside unless they are too many for one file."""
    inputs = [name for name in ("pixels", "ids", "mask") if name in _input_names(program)]
    size = sum(t.nbytes for t in program.state_dict.values())
    with _quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            input_names=inputs,
            output_names=list(outputs),
            opset_version=OPSET,
        )
        exported.save(str(path), external_data=size > ONE_FILE)


def save_torch(program: ExportedProgram, path: Path) -> None:
    """Write a program in torch.export's own form."""
    with _quiet():
        torch.export.save(program, path)


def _input_names(program: ExportedProgram) -> tuple[str, ...]:
    return program.graph_signature.user_inputs


@torch.no_grad()
def _trace(graph: nn.Module, inputs: dict[str, Tensor], shapes: dict[str, Any]) -> ExportedProgram:
    try:
        with _quiet():
            return torch.export.export(
                graph.eval(), (), kwargs=inputs, dynamic_shapes=shapes, strict=False
            )
    except Exception as error:
        name = graph.model.encoder.name
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"a model around encoder {name} cannot be exported ({reason}): serve it with torch"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Tracing warns of what other versions of torch may do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
