"""One function from a name to an encoder; a name that could mean two things is refused.

==============================  ==================================================================
``freestyle-mini``              built in, needs no download
``random:clip-vit-l-14``        full-size architecture with seeded random weights
``openai/clip-vit-base-patch32``  hub id of a CLIP, SigLIP, SigLIP 2 or BLIP retrieval model
``hf-hub:owner/model``          the same, even if a folder of that name exists
``path/to/folder``              local folder with ``config.json``, weights and tokenizer
==============================  ==================================================================
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from freestyle.encoders.random_weights import ARCHITECTURES
from freestyle.errors import UserError

if TYPE_CHECKING:
    from freestyle.encoders.base import DualEncoder

MINI = "freestyle-mini"
_RANDOM = "random:"
_HUB = "hf-hub:"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_EXAMPLES = (
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-large-patch14",
    "google/siglip-base-patch16-224",
    "google/siglip2-base-patch16-224",
    "Salesforce/blip-itm-base-coco",
    "Salesforce/blip-itm-large-coco",
)


def create(
    name: str,
    *,
    revision: str | None = None,
    seed: int = 0,
    attention: Literal["sdpa", "eager"] = "sdpa",
) -> DualEncoder:
    """Build a frozen dual encoder by name.

    Args:
        name: ``freestyle-mini``, a hub id (``hf-hub:`` in front is allowed), a local folder or
            ``random:<architecture>``; see the table in :mod:`freestyle.encoders.factory`.
        revision: Branch, tag or commit of a hub id.
        seed: Seed of the weights of ``random:`` names.
        attention: ``"sdpa"``, or ``"eager"``, whose backward pass is faster on a CPU. It can be
            changed later through the encoder's ``attention``; ``freestyle-mini`` decides itself.

    Returns:
        The encoder in float32 on the CPU, frozen and in evaluation mode.

    Raises:
        UserError: If the name is unknown or ambiguous, or the checkpoint cannot be used.
    """
    name = name.strip()
    hub_id = _hub_id(name)
    if revision is not None and hub_id is None:
        raise UserError(f"revision applies to hub ids only, not to encoder {name!r}: leave it out")
    if name == MINI:
        from freestyle.encoders.mini import FreestyleMini

        return FreestyleMini()
    if name.startswith(_RANDOM):
        architecture = name.removeprefix(_RANDOM)
        if architecture not in ARCHITECTURES:
            raise UserError(_unknown(name))
        from freestyle.encoders.random_weights import build_random

        return build_random(architecture, seed=seed, attention=attention)

    if hub_id is None and not _is_folder(name):
        raise UserError(_unknown(name))
    from freestyle.encoders.checkpoints import open_folder, open_hub

    if hub_id is not None:
        checkpoint = open_hub(hub_id, revision)
    else:
        checkpoint = open_folder(Path(name).expanduser())
    from freestyle.encoders.families import from_checkpoint

    return from_checkpoint(checkpoint, name=name, attention=attention)


def _hub_id(name: str) -> str | None:
    """The hub id a name stands for, or None.

    Raises:
        UserError: If ``hf-hub:`` is followed by something else, or a well-known hub id is also a
            folder here. Any other existing folder is a folder; ``hf-hub:`` means the hub.
    """
    if name.startswith(_HUB):
        hub_id = name.removeprefix(_HUB)
        if not _HUB_ID.fullmatch(hub_id):
            raise UserError(f"encoder {name!r}: write hf-hub:owner/model")
        return hub_id
    if not _HUB_ID.fullmatch(name):
        return None
    if not _is_folder(name):
        return name
    if name in _EXAMPLES:
        raise UserError(
            f"encoder {name!r} is a hub id and a folder here: write ./{name} or {_HUB}{name}"
        )
    return None


def _is_folder(name: str) -> bool:
    try:
        return bool(name) and Path(name).expanduser().is_dir()
    except OSError:  # a name too long for a path
        return False


def _unknown(name: str) -> str:
    """The sentence for a name that is nothing, with the nearest ones that are something."""
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        return f"encoder {name!r}: no such folder; write the path of one that holds a checkpoint"
    random_names = [_RANDOM + architecture for architecture in ARCHITECTURES]
    bare = name.rstrip("/").rpartition("/")[2].removeprefix(_RANDOM).lower()
    spellings = {
        known.rpartition("/")[2].removeprefix(_RANDOM).lower(): known
        for known in (MINI, *random_names, *_EXAMPLES)
    }
    near = [spellings[s] for s in difflib.get_close_matches(bare, spellings, n=3, cutoff=0.6)]
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return (
        f"unknown encoder {name!r}: {hint}Write {MINI}, a hub id such as {_EXAMPLES[0]}, "
        f"an existing local folder, or one of {', '.join(random_names)}"
    )
