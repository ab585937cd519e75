"""Any picture again from its line in a sidecar."""

from __future__ import annotations

from PIL import Image

from freestyle.datasets.photos import Photo
from freestyle.errors import UserError
from freestyle.generation.catalogue import build, spec_of
from freestyle.generation.engine import Item
from freestyle.generation.journal import Row
from freestyle.generation.pictures import encode, shrunk


def remake(row: Row, photo: Image.Image | Photo | None, device: str = "cpu") -> bytes:
    """Make a picture again from its row alone.

    Args:
        row: A line of a style's sidecar.
        photo: The photo, whole; None suffices for pictures made from captions alone.
        device: For engines that run networks; equal bytes need the same kind of device.

    Returns:
        The bytes of the picture's file.

    Raises:
        UserError: If the photo or the row's engine is not to be had.
    """
    whole = photo.picture() if isinstance(photo, Photo) else photo
    picture = Image.new("RGB", (64, 64)) if whole is None else shrunk(whole, row["max_side"])
    engine = build(spec_of(row), device)
    if engine.describe().get("models") != row["made_by"].get("models"):
        raise UserError(
            f"{row['id']} was made by other checkpoints than those that are here now: get the "
            "revisions that the row's made_by.models names"
        )
    item = Item(row["id"], picture, row.get("caption"), row["seed"])
    made = engine([item])[0]
    if made.picture is None:
        return f"{made.text}\n".encode()
    return encode(made.picture, row["format"])
