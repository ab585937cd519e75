"""An encoder's tokenizer in a form that needs neither torch nor transformers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from freestyle.encoders.token_ids import open_tokens
from freestyle.encoders.tokenizers import HubTokenizer, WordHashTokenizer
from freestyle.errors import UserError

if TYPE_CHECKING:
    from freestyle.encoders.base import DualEncoder

LONG = ["word " * 1000]
SAMPLES = (
    "",
    " ",
    "a red boat, at night!",
    "UPPER lower  Two   spaces\nand\ta tab",
    "Müller's naïve café — 東京 のねこ",
    "\U0001f600 \u200d \ufe0f 3.5€ #tag @name",
    "x" * 300,
    "word " * 300,
)
"""Texts on which the saved tokenizer must agree with the encoder's own."""


def save_tokens(encoder: DualEncoder, folder: Path, n_prompts: int = 0) -> dict[str, Any]:
    """Write an encoder's tokenizer.

    Args:
        encoder: Any encoder.
        folder: Where to.
        n_prompts: Learned text prompts, for which room is left.

    Returns:
        Settings for :func:`freestyle.encoders.token_ids.open_tokens`, and ``length``, which is the
        longest text in tokens.

    Raises:
        UserError: If the tokenizer has no such form.
    """
    length = encoder.tokenize(LONG, n_prompts)[0].shape[1]
    tokenizer = encoder.tokenizer
    if isinstance(tokenizer, WordHashTokenizer):
        names = ("vocab_size", "start", "end", "pad", "pad_to_max")
        settings = {"kind": "word-hash", "length": length}
        settings |= {name: getattr(tokenizer, name) for name in names}
    elif isinstance(tokenizer, HubTokenizer):
        settings = _save_hub(tokenizer, folder, length)
    else:
        raise UserError(
            f"encoder {encoder.name} has a tokenizer of its own kind, which cannot be exported: "
            "serve it with torch"
        )
    _compare(encoder, settings, folder, n_prompts)
    return settings


def _save_hub(hub: HubTokenizer, folder: Path, length: int) -> dict[str, Any]:
    own = hub.tokenizer
    if hasattr(own, "backend_tokenizer"):
        from tokenizers import Tokenizer

        copied = Tokenizer.from_str(own.backend_tokenizer.to_str())
        copied.enable_truncation(length, direction=own.truncation_side)
        copied.enable_padding(
            direction=own.padding_side,
            pad_id=own.pad_token_id,
            pad_type_id=own.pad_token_type_id,
            pad_token=own.pad_token,
            length=length if hub.pad_to_max else None,
        )
        copied.save(str(folder / "tokenizer.json"))
        return {"kind": "tokenizers", "file": "tokenizer.json", "length": length}
    if type(own).__name__ == "SiglipTokenizer":
        (folder / "tokenizer.model").write_bytes(own.sp_model.serialized_model_proto())
        return {
            "kind": "sentencepiece",
            "file": "tokenizer.model",
            "length": length,
            "end": own.eos_token_id,
            "pad": own.pad_token_id,
            "lower": bool(own.do_lower_case),
        }
    raise UserError(
        f"tokenizers of kind {type(own).__name__} cannot be exported: serve the model with torch"
    )


def _compare(encoder: DualEncoder, settings: dict[str, Any], folder: Path, n_prompts: int) -> None:
    """Refuse a saved tokenizer that reads a text otherwise than the encoder's own."""
    saved = open_tokens(settings, folder)
    for text in SAMPLES:
        expected = encoder.tokenize([text], n_prompts)
        found = saved([text])
        for one, other in zip(expected, found, strict=True):
            if one.shape != other.shape or (one.cpu().numpy() != other).any():
                raise UserError(
                    f"the tokenizer of encoder {encoder.name} is not the same outside of "
                    f"transformers (text {text[:20]!r}): serve the model with torch"
                )
