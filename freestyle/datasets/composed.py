"""Composed queries: a reference picture, a text that changes it, and what is wanted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from freestyle.datasets.images import load_image
from freestyle.errors import UserError

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Cut:
    """A part of a picture file.

    Attributes:
        path: The file.
        box: Left, top, width and height in pixels.
        dilate: How much wider and higher the part is, in fractions of the box.
    """

    path: Path
    box: tuple[float, float, float, float]
    dilate: float = 0.7

    def load(self) -> Image.Image:
        """The part on a black square, as GeneCIS's own code cuts it."""
        from PIL import Image

        whole = load_image(self.path).convert("RGB")
        x, y, width, height = self.box
        left, top = max(0, x - self.dilate * width), max(0, y - self.dilate * height)
        right = min(whole.width, left + (1 + self.dilate) * width)
        bottom = min(whole.height, top + (1 + self.dilate) * height)
        part = whole.crop((round(left), round(top), round(right), round(bottom)))
        side = max(part.size)
        square = Image.new("RGB", (side, side))
        square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
        return square


Picture = "Path | str | Cut | Image.Image"


def load_picture(picture: Any) -> Image.Image:
    """Read a path or a cut; a PIL image passes through.

    Raises:
        UserError: If the file is missing or is no readable picture.
    """
    return picture.load() if isinstance(picture, Cut) else load_image(picture)


def picture_key(picture: Any) -> bytes:
    """A hash of a picture's content and cut."""
    digest = hashlib.blake2b(digest_size=16)
    path = picture.path if isinstance(picture, Cut) else picture
    if isinstance(picture, Cut):
        digest.update(repr((picture.box, picture.dilate)).encode())
    if isinstance(path, str | Path):
        try:
            digest.update(Path(path).read_bytes())
        except OSError as error:
            raise UserError(
                f"cannot read the picture {path} ({error.strerror}): check the data folder"
            ) from error
    else:
        digest.update(repr((path.mode, path.size)).encode() + path.tobytes())
    return digest.digest()


@dataclass(frozen=True)
class ComposedQuery:
    """One query.

    Attributes:
        id: Unique within its split.
        reference: The picture that is to be changed.
        reference_id: Its id in the gallery; empty where it is not in it.
        text: The modification.
        targets: Ids of the valid targets; empty where they are not public.
        style: Of the reference picture.
        group: What results are reported by: FashionIQ's category, GeneCIS's task; and by which
            queries pair: those of one group-less pair asked in several styles share it.
        pair: Names the (reference, text) pair; the same in every style.
        candidates: The only gallery ids that are ranked; empty ranks all.
        subset: Ids of CIRR's small group, the reference not among them.
        concept: CIRCO's shared concept, for prompts.
    """

    id: str
    reference: Any
    reference_id: str
    text: str
    targets: tuple[str, ...] = ()
    style: str = "photo"
    group: str = ""
    pair: str = ""
    candidates: tuple[str, ...] = ()
    subset: tuple[str, ...] = ()
    concept: str = ""


@dataclass(frozen=True)
class ComposedProtocol:
    """How a benchmark ranks and what it reports.

    Attributes:
        recall_at: Lengths of Recall@K.
        map_at: Lengths of mAP@K.
        subset_recall_at: Lengths of Recall@K within CIRR's groups.
        drop_reference: Whether the reference leaves the ranking.
        main: The metric that presets are chosen by.
    """

    recall_at: tuple[int, ...] = (1, 5, 10)
    map_at: tuple[int, ...] = ()
    subset_recall_at: tuple[int, ...] = ()
    drop_reference: bool = False
    main: str = "R@1"


@dataclass(frozen=True, eq=False)
class ComposedSplit:
    """One split of a composed benchmark.

    Attributes:
        dataset: Name in reports.
        split: Name of the split.
        gallery: G pictures.
        gallery_ids: Their ids, unique.
        queries: All queries.
        protocol: How they are ranked.
        note: What a reader must know of the numbers, such as FashionIQ's gallery.

    Raises:
        UserError: If ids repeat, or a query asks for a picture that is not in the gallery.
    """

    dataset: str
    split: str
    gallery: Sequence[Any]
    gallery_ids: Sequence[str]
    queries: Sequence[ComposedQuery]
    protocol: ComposedProtocol = field(default_factory=ComposedProtocol)
    note: str = ""

    def __post_init__(self) -> None:
        where = f"{self.dataset}, split {self.split}"
        known = set(self.gallery_ids)
        if len(known) != len(self.gallery) or len(self.gallery) != len(self.gallery_ids):
            raise UserError(
                f"{where}: gallery ids repeat or do not fit the pictures: mend the list"
            )
        if not self.queries:
            raise UserError(f"{where} has no queries: check its annotation files")
        seen: set[str] = set()
        checked: set[int] = set()  # lists that many queries share
        for query in self.queries:
            if query.id in seen:
                raise UserError(
                    f"{where}: query id {query.id!r} occurs twice: mend the annotations"
                )
            seen.add(query.id)
            shared = () if id(query.candidates) in checked else query.candidates
            checked.add(id(query.candidates))
            for asked in (*query.targets, *shared, *query.subset):
                if asked not in known:
                    raise UserError(
                        f"{where}: query {query.id!r} names picture {asked!r}, which is not in the "
                        "gallery: complete the image split"
                    )

    @property
    def public(self) -> bool:
        """Whether every query has its targets."""
        return all(query.targets for query in self.queries)

    def position(self) -> dict[str, int]:
        """Place of every id in the gallery."""
        return {name: place for place, name in enumerate(self.gallery_ids)}


def read_json(path: Path, kind: type | tuple[type, ...], what: str) -> Any:
    """A JSON file that must hold a list or a dictionary.

    Raises:
        UserError: If it is missing, no JSON, or something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"cannot read {what} {path} ({error.strerror}): check the folder"
        ) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: download or write {what} again") from error
    if not isinstance(values, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(k.__name__ for k in kinds)
        raise UserError(f"{path} holds no {names}: it must be {what}")
    return values


def entry_value(
    entry: Any, key: str, kind: type | tuple[type, ...], path: Path, row: object
) -> Any:
    """One field of an annotation.

    Raises:
        UserError: If it is missing or of another type.
    """
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(
            f"{path}, entry {row}: {key!r} is missing or wrong: download the file again"
        )
    return value


def with_references(
    split: ComposedSplit, folder: str, root: str = "", style: str | None = None
) -> ComposedSplit:
    """The same split with stylised references: CIR-Style.

    ``freestyle generate`` writes a folder of pictures with the photos' relative stems; texts,
    targets and gallery stay.

    Args:
        split: Any composed split whose references are files, or parts of them; a part is cut from
            the stylised picture at the same place, which must have the size of the photo.
        folder: Of the stylised references.
        root: The folder that the original paths are relative to; theirs are matched by file stem
            where empty.
        style: Name of the style in reports; the folder's name where None.

    Raises:
        UserError: If a reference has no stylised version.
    """
    from dataclasses import replace

    from freestyle.datasets.images import IMAGE_EXTENSIONS

    place = Path(folder)
    if not place.is_dir():
        raise UserError(f"folder of stylised references {folder} does not exist: generate it first")
    by_stem: dict[str, Path] = {}
    for path in sorted(place.rglob("*")):
        if path.suffix.lower() in IMAGE_EXTENSIONS:
            name = path.relative_to(place).with_suffix("").as_posix()
            if name in by_stem:
                raise UserError(f"{folder} has two pictures for {name!r}: keep one of them")
            by_stem[name] = path
    name = style or place.name
    queries = []
    for query in split.queries:
        cut = query.reference if isinstance(query.reference, Cut) else None
        own = cut.path if cut else query.reference
        if not isinstance(own, Path):
            raise UserError(
                f"{split.dataset}: references that are no files have no stems: save them"
            )
        if root and not own.is_relative_to(root):
            raise UserError(
                f"data.references.root {root} does not hold the reference {own}: give data.root"
            )
        own = own.with_suffix("")
        stem = own.relative_to(root).as_posix() if root else own.name
        found = by_stem.get(stem)
        if found is None:
            raise UserError(
                f"{folder} has no stylised reference {stem!r} of query {query.id!r}: generate it "
                "from the benchmark's pictures"
            )
        reference = replace(cut, path=found) if cut else found
        queries.append(replace(query, reference=reference, style=name))
    return replace(split, dataset=f"{split.dataset} ({name} references)", queries=queries)
