"""DSR-Emoji: the builder on a tiny package tree, and the data set that is shipped."""

import importlib.util
import io
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DATA = Path(__file__).parents[2] / "data"
EMOJI = DATA / "emoji"
PICTURES = ("images", "sketch", "art", "colour", "mosaic")


@pytest.fixture(scope="module")
def build_emoji():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DATA))
        spec = importlib.util.spec_from_file_location("build_emoji", DATA / "build_emoji.py")
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "build_emoji", module)
        spec.loader.exec_module(module)
        yield module


def _svg(shape: str, side: int = 72) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {side} {side}">{shape}</svg>'


def _record(code: str, annotation: str, group: str = "symbols") -> dict:
    return {
        "hexcode": code,
        "annotation": annotation,
        "tags": "one, two",
        "group": group,
        "subgroups": "sub",
        "openmoji_author": "Ada",
    }


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _render(size: tuple[int, int] = (256, 256)) -> bytes:
    """A transparent picture with an opaque red square in its middle."""
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (64, 64, 192, 192))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


@pytest.fixture
def packages(tmp_path):
    """Packages that agree on three concepts, with all the ways in which their names differ."""
    root = tmp_path / "packages"
    openmoji, fluent, twemoji = (
        root / name for name in ("openmoji", "@lobehub/fluent-emoji-3d", "@twemoji/svg")
    )
    for folder, version in ((openmoji, "17.0.0"), (fluent, "1.1.0"), (twemoji, "15.0.0")):
        _write(folder / "package.json", json.dumps({"version": version}))
    records = [
        _record("1F600", "grinning  face", "smileys-emotion"),
        _record("0023-FE0F-20E3", "keycap: #"),
        _record("2639", "frowning face"),
        _record("1F44B-1F3FD", "waving hand: medium skin tone", "people-body"),
        _record("1F3C1", "chequered flag", "flags"),
        _record("1F9B0", "red hair", "component"),
        _record("1FAE9", "only in OpenMoji"),
    ]
    _write(openmoji / "data" / "openmoji.json", json.dumps(records))
    for record in records:
        line = '<circle cx="36" cy="36" r="20" fill="none" stroke="#000" stroke-width="4"/>'
        fill = '<circle cx="36" cy="36" r="20" fill="#00f"/>'
        _write(openmoji / "black" / "svg" / f"{record['hexcode']}.svg", _svg(line))
        _write(openmoji / "color" / "svg" / f"{record['hexcode']}.svg", _svg(fill))
    rest = ("1f44b-1f3fd", "1f3c1", "1f9b0")
    for stem in ("1f600", "23-fe0f-20e3", "2639-fe0f", *rest):
        _write(fluent / "assets" / f"{stem}.webp", _render())
    for stem in ("1f600", "23-20e3", "2639", *rest):
        _write(twemoji / f"{stem}.svg", _svg('<rect width="36" height="36" fill="#0f0"/>', 36))
    return root


def _pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.size == (128, 128)
        assert picture.mode == "RGB"
        return np.asarray(picture).astype(int)


def _files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("stem", "base"),
    [
        ("1f600", "1f600"),
        ("1f469-200d-1f373", "1f9d1-1f373"),
        ("1f468-200d-1f373", "1f9d1-1f373"),
        ("1f3cb-fe0f-200d-2640-fe0f", "1f3cb"),
        ("1f3f3-fe0f-200d-1f308", "1f3f3-1f308"),
        ("2640", ""),
    ],
)
def test_base_concept(build_emoji, stem, base):
    assert build_emoji.base_concept(stem) == base


@pytest.mark.parametrize(
    ("stem", "split"),
    [
        # Remainders of sha256sum's output, taken with bc; these four lie on the borders.
        ("1f357", "train"),  # 59
        ("1f3b7", "val"),  # 60
        ("1f239", "val"),  # 69
        ("1f3e1", "test"),  # 70
        ("1f469-200d-1f373", "train"),  # as 1f9d1-1f373: 17
        ("1f468-200d-1f373", "train"),
    ],
)
def test_split_of(build_emoji, stem, split):
    assert build_emoji.split_of(stem) == split


def test_match_key_ignores_fe0f_and_leading_zeros(build_emoji):
    assert build_emoji.match_key("0023-FE0F-20E3") == build_emoji.match_key("23-20e3") == "23-20e3"
    assert build_emoji.match_key("1F170") == "1f170"


def test_build_of_a_tiny_tree(build_emoji, packages, tmp_path, capsys):
    out = tmp_path / "emoji"
    assert build_emoji.main(["--packages", str(packages), "--out", str(out), "--workers", "1"]) == 0
    assert "3 concepts" in capsys.readouterr().out
    stems = ["0023-fe0f-20e3", "1f600", "2639"]  # no skin tone, flag, component or lone drawing
    for style in PICTURES:
        assert sorted(p.name for p in (out / style).iterdir()) == [f"{s}.webp" for s in stems]
    assert (out / "text" / "1f600.txt").read_text("utf-8") == "grinning face\none, two\n"
    entries = [
        e for s in ("train", "val", "test") for e in json.loads((out / f"{s}.json").read_text())
    ]
    assert sorted(e["image"] for e in entries) == [f"{s}.webp" for s in stems]
    assert {"image": "1f600.webp", "caption": "1f600.txt"} in entries
    concepts = {c["stem"]: c for c in json.loads((out / "concepts.json").read_text("utf-8"))}
    assert concepts["1f600"] == {
        "stem": "1f600",
        "annotation": "grinning face",
        "tags": "one, two",
        "group": "smileys-emotion",
        "subgroup": "sub",
        "base": "1f600",
        "split": build_emoji.split_of("1f600"),
        "openmoji_author": "Ada",
    }
    assert not list(tmp_path.glob(".emoji-*"))  # no scratch folder left


def test_pictures_of_a_tiny_tree(build_emoji, packages, tmp_path):
    build_emoji.build(build_emoji.find_packages(packages, build_emoji.PACKAGES), tmp_path / "out")
    out = tmp_path / "out"
    image = _pixels(out / "images" / "1f600.webp")
    assert image[0, 0].min() >= 250  # transparent became white
    assert np.abs(image[64, 64] - [255, 0, 0]).max() <= 8
    sketch = _pixels(out / "sketch" / "1f600.webp")
    assert sketch[64, 64].tolist() == [255, 255, 255]
    assert sketch.min() == 0
    assert _pixels(out / "colour" / "1f600.webp")[64, 64].tolist() == [0, 0, 255]
    assert _pixels(out / "art" / "1f600.webp")[0, 0].tolist() == [0, 255, 0]


def test_render_that_is_not_square_is_padded(build_emoji, tmp_path):
    _write(tmp_path / "tall.webp", _render((256, 264)))
    picture = np.asarray(build_emoji.draw_render(tmp_path / "tall.webp"))
    assert picture.shape == (128, 128, 3)
    red = np.flatnonzero((picture[:, 64] == [255, 0, 0]).all(1))
    wide = np.flatnonzero((picture[64] == [255, 0, 0]).all(1))
    assert abs(len(red) - len(wide)) <= 1  # the square is still a square


def test_low_res_by_hand(build_emoji):
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[:8, :4] = 200  # half of the first area: mean 100
    small = np.asarray(build_emoji.low_res(Image.fromarray(pixels)))
    assert small.shape == (128, 128, 3)
    assert small[0, 0].tolist() == [100, 100, 100]  # before the first area's centre: its own value
    assert small[0, 8, 0] == 44  # pixel 8: centre 8.5, between area centres 4 and 12: 100*(3.5/8)
    assert small[64, 64].tolist() == [0, 0, 0]


def test_two_builds_are_identical_also_with_more_processes(packages, tmp_path):
    outs = []
    for name, workers in (("one", "1"), ("two", "2")):
        out = tmp_path / name
        command = [sys.executable, str(DATA / "build_emoji.py"), "--packages", str(packages)]
        subprocess.run([*command, "--out", str(out), "--workers", workers], check=True)
        outs.append(_files(out))
    assert outs[0] == outs[1]
    assert len(outs[0]) == 3 * 6 + 4


def test_rebuild_replaces_the_old_and_keeps_the_readme(build_emoji, packages, tmp_path):
    out = tmp_path / "emoji"
    _write(out / "README.md", "card")
    _write(out / "LICENSES" / "MIT.txt", "text")
    _write(out / "images" / "stale.webp", b"old")
    arguments = ["--packages", str(packages), "--out", str(out), "--workers", "1"]
    assert build_emoji.main(arguments) == 0
    files = _files(out)
    assert files["README.md"] == b"card"
    assert files["LICENSES/MIT.txt"] == b"text"
    assert "images/stale.webp" not in files


def test_packages_below_node_modules(build_emoji, packages, tmp_path):
    (tmp_path / "prefix").mkdir()
    packages.rename(tmp_path / "prefix" / "node_modules")
    found = build_emoji.find_packages(tmp_path / "prefix", build_emoji.PACKAGES)
    assert len(build_emoji.read_concepts(found)) == 3


def _wrong_version(root: Path) -> None:
    _write(root / "openmoji" / "package.json", '{"version": "16.0.0"}')


def _no_package(root: Path) -> None:
    (root / "@twemoji").rename(root / "elsewhere")


def _no_manifest(root: Path) -> None:
    (root / "openmoji" / "package.json").unlink()


def _broken_list(root: Path) -> None:
    _write(root / "openmoji" / "data" / "openmoji.json", '[{"hexcode": "1F600"}]')


def _broken_svg(root: Path) -> None:
    _write(root / "openmoji" / "black" / "svg" / "1F600.svg", "no drawing")


def _broken_render(root: Path) -> None:
    _write(root / "@lobehub/fluent-emoji-3d" / "assets" / "1f600.webp", b"no picture")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_wrong_version, ["16.0.0", "17.0.0", "openmoji@17.0.0"]),
        (_no_package, ["@twemoji/svg@15.0.0"]),
        (_no_manifest, ["package.json", "openmoji@17.0.0"]),
        (_broken_list, ["openmoji.json"]),
        (_broken_svg, ["1F600.svg"]),
        (_broken_render, ["1f600.webp"]),
    ],
)
def test_bad_packages_end_with_one_sentence(build_emoji, packages, tmp_path, capsys, spoil, words):
    spoil(packages)
    out = tmp_path / "emoji"
    arguments = ["--packages", str(packages), "--out", str(out), "--workers", "1"]
    assert build_emoji.main(arguments) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert all(word in sentence for word in words), sentence
    assert not out.exists()


def test_bad_options_end_with_one_sentence(build_emoji, packages, tmp_path, capsys):
    ours = tmp_path / "mine"
    _write(ours / "thesis.txt", "precious")
    for arguments, word in (
        (["--packages", str(tmp_path / "none")], "none"),
        (["--packages", str(packages), "--out", str(ours)], "mine"),
        (["--packages", str(packages), "--out", str(ours / "thesis.txt")], "thesis.txt"),
        (["--packages", str(packages), "--workers", "0"], "--workers"),
    ):
        assert build_emoji.main(arguments) == 2
        assert word in capsys.readouterr().err
    assert (ours / "thesis.txt").read_text() == "precious"


# --- partial sketches ---

PARTIAL = ("sketch-25", "sketch-50", "sketch-75")
INK = 'fill="none" stroke="#000" stroke-width="4"'
BARS = "".join(f'<line x1="{x}" x2="{x}" y1="10" y2="60" {INK}/>' for x in (10, 20, 30, 40, 50))


def _column(x: int) -> int:
    """The column of pixels in the middle of a bar at ``x``."""
    return round(x * 128 / 72)


def _bars(path: Path) -> int:
    return sum(_pixels(path)[64, _column(x), 0] == 0 for x in (10, 20, 30, 40, 50))


@pytest.fixture
def partial(build_emoji, packages, tmp_path):
    """Draw these shapes as 1F600 in a finished build; return its folder."""

    def run(shapes: str) -> Path:
        out = tmp_path / "emoji"
        _write(packages / "openmoji" / "black" / "svg" / "1F600.svg", _svg(shapes))
        arguments = ["--packages", str(packages), "--out", str(out), "--workers", "1"]
        assert build_emoji.main(arguments) == 0
        assert build_emoji.main([*arguments, "--partial"]) == 0
        return out

    return run


def test_partial_counts_by_hand(partial):
    out = partial(BARS)
    assert [_bars(out / s / "1f600.webp") for s in PARTIAL] == [2, 3, 4]  # 1.25, 2.5, 3.75
    assert _pixels(out / "sketch-25" / "1f600.webp")[64, _column(20), 0] == 0  # the first two
    ink = [_pixels(out / s / "1f600.webp") < 255 for s in (*PARTIAL, "sketch")]
    for less, more in itertools.pairwise(ink):
        assert (more | ~less).all() and more.sum() > less.sum()
    lone = [_pixels(out / s / "2639.webp") for s in (*PARTIAL, "sketch")]
    assert all(np.array_equal(picture, lone[-1]) for picture in lone)  # one stroke stays


@pytest.mark.parametrize(
    "hidden",
    [
        '<rect width="72" height="72" fill="none"/>',
        '<g fill="none"><rect width="72" height="72"/></g>',
        '<line x1="0" x2="72" y1="5" y2="5"/>',
        f'<rect x="30" y="20" width="0" height="11" {INK}/>',
        f'<circle cx="9" cy="9" r="5" {INK} display="none"/>',
        f'<g visibility="hidden"><circle cx="9" cy="9" r="5" {INK}/></g>',
        '<path d="M0 0h72" fill="none" stroke="#000" stroke-width="0"/>',
        '<path d="M0 0h72v72z" style="fill-opacity:0"/>',
        f'<defs><circle cx="9" cy="9" r="5" {INK}/></defs>',
        f'<clipPath><circle cx="9" cy="9" r="5" {INK}/></clipPath>',
    ],
)
def test_partial_counts_no_invisible_shapes(partial, hidden):
    out = partial(hidden + hidden + BARS)
    assert [_bars(out / s / "1f600.webp") for s in PARTIAL] == [2, 3, 4]


def test_partial_keeps_what_shapes_take_from_their_groups(partial):
    bars = "".join(f'<path d="M{x} 0v50"/>' for x in (0, 10, 20, 30, 40))
    out = partial(f'<g transform="translate(10 10)" style="stroke:#000;stroke-width:4">{bars}</g>')
    assert [_bars(out / s / "1f600.webp") for s in PARTIAL] == [2, 3, 4]


@pytest.mark.parametrize(
    ("shape", "inside"),
    [
        ('<path d="M10 10h52v52h-52z"/>', 0),
        ('<rect x="10" y="10" width="52" height="52"/>', 0),
        ('<circle cx="36" cy="36" r="26"/>', 0),
        ('<ellipse cx="36" cy="36" rx="26" ry="20"/>', 0),
        ('<polyline points="10,10 62,10 62,62 10,62"/>', 0),
        ('<polygon points="10,10 62,10 62,62 10,62"/>', 0),
    ],
)
def test_partial_knows_every_shape(partial, shape, inside):
    late = f'<circle cx="4" cy="4" r="3" {INK}/>'
    out = partial(f"{late}<g>{shape}</g>")
    seen = [_pixels(out / s / "1f600.webp")[64, 64, 0] for s in PARTIAL]
    assert seen == [255, 255, inside]  # one stroke of two, until 1.5 is rounded up


def test_partial_of_an_empty_drawing_is_empty(partial):
    out = partial("")
    assert all(_pixels(out / s / "1f600.webp").min() == 255 for s in PARTIAL)


def test_partial_changes_nothing_else(build_emoji, packages, tmp_path, capsys):
    out = tmp_path / "emoji"
    arguments = ["--packages", str(packages), "--out", str(out), "--workers", "1"]
    assert build_emoji.main(arguments) == 0
    before, digest = _files(out), build_emoji.tree_digest(out)
    for other in ("@twemoji", "@lobehub"):  # only OpenMoji is read
        (packages / other).rename(tmp_path / other)
    _write(out / "sketch-50" / "stale.webp", b"old")
    assert build_emoji.main([*arguments, "--partial"]) == 0
    assert "3 sketches" in capsys.readouterr().out
    files = _files(out)
    names = [Path(name).name for name in before if name.startswith("sketch/")]
    new = {f"{style}/{name}" for style in PARTIAL for name in names}
    assert set(files) == set(before) | new  # the stale file is gone
    assert {name: files[name] for name in before} == before
    assert build_emoji.tree_digest(out) == digest
    assert not list(tmp_path.glob(".emoji-*"))

    for other in ("@twemoji", "@lobehub"):
        (tmp_path / other).rename(packages / other)
    assert build_emoji.main(arguments) == 0  # a later build knows the folders and keeps them
    assert _files(out) == files


def test_partial_is_the_same_with_more_processes(build_emoji, packages, tmp_path):
    out = tmp_path / "emoji"
    assert build_emoji.main(["--packages", str(packages), "--out", str(out)]) == 0
    builds = []
    for workers in ("1", "2"):
        command = [sys.executable, str(DATA / "build_emoji.py"), "--packages", str(packages)]
        command += ["--out", str(out), "--workers", workers, "--partial"]
        subprocess.run(command, check=True)
        builds.append(_files(out))
    assert builds[0] == builds[1]


@pytest.mark.parametrize("spoil", ["missing", "empty", "file", "other", "half"])
def test_partial_refuses_what_is_no_build(build_emoji, packages, tmp_path, capsys, spoil):
    out = tmp_path / "target"
    if spoil == "file":
        _write(out, "precious")
    elif spoil == "empty":
        out.mkdir()
    elif spoil == "other":
        _write(out / "images" / "1.jpg", b"photo")
        _write(out / "train.json", "[]")
    elif spoil == "half":
        assert build_emoji.main(["--packages", str(packages), "--out", str(out)]) == 0
        (out / "concepts.json").unlink()
    before = _files(out)
    capsys.readouterr()
    assert build_emoji.main(["--packages", str(packages), "--out", str(out), "--partial"]) == 2
    (sentence,) = capsys.readouterr().err.strip().splitlines()
    assert "target" in sentence and "no DSR-Emoji build" in sentence
    assert _files(out) == before
    assert out.exists() == (spoil != "missing")


@pytest.mark.parametrize("content", [b"no drawing", b"<svg><g></svg>", None])
def test_partial_of_a_bad_drawing_leaves_the_old(build_emoji, packages, tmp_path, capsys, content):
    out = tmp_path / "emoji"
    arguments = ["--packages", str(packages), "--out", str(out), "--workers", "1"]
    assert build_emoji.main(arguments) == build_emoji.main([*arguments, "--partial"]) == 0
    before = _files(out)
    line = packages / "openmoji" / "black" / "svg" / "1F600.svg"
    line.unlink()
    if content is not None:
        _write(line, content)
    assert build_emoji.main([*arguments, "--partial"]) == 2
    assert "1F600.svg" in capsys.readouterr().err.strip().splitlines()[-1]
    assert _files(out) == before


# --- the data set that is shipped ---


@pytest.fixture(scope="module")
def splits():
    return {s: json.loads((EMOJI / f"{s}.json").read_text()) for s in ("train", "val", "test")}


def test_shipped_counts(splits):
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 950,
        "val": 167,
        "test": 482,
    }
    concepts = json.loads((EMOJI / "concepts.json").read_text("utf-8"))
    assert len(concepts) == 1599
    assert all(c["annotation"] and c["group"] and c["openmoji_author"] for c in concepts)
    for split, rows in splits.items():
        assert [c["stem"] for c in concepts if c["split"] == split] == [
            Path(row["image"]).stem for row in rows
        ]


def test_shipped_files_exist_in_every_style(splits):
    stems = {Path(row["image"]).stem for rows in splits.values() for row in rows}
    assert len(stems) == 1599
    for style in PICTURES:
        assert {p.name for p in (EMOJI / style).iterdir()} == {f"{s}.webp" for s in stems}
    assert {p.name for p in (EMOJI / "text").iterdir()} == {f"{s}.txt" for s in stems}
    for rows in splits.values():
        assert all(Path(row["image"]).stem == Path(row["caption"]).stem for row in rows)


def test_shipped_texts_have_two_lines():
    for path in (EMOJI / "text").iterdir():
        annotation, tags = path.read_text("utf-8").splitlines()
        assert annotation and tags, path.name


def test_shipped_split_has_no_leak(build_emoji, splits):
    bases = {
        split: {build_emoji.base_concept(Path(row["image"]).stem) for row in rows}
        for split, rows in splits.items()
    }
    assert not bases["train"] & bases["val"]
    assert not bases["train"] & bases["test"]
    assert not bases["val"] & bases["test"]
    for split, rows in splits.items():
        assert all(build_emoji.split_of(Path(row["image"]).stem) == split for row in rows)


def test_shipped_pictures(build_emoji, splits):
    stems = sorted(Path(row["image"]).stem for rows in splits.values() for row in rows)
    corners = (slice(None, None, 127), slice(None, None, 127))
    for stem in stems:
        for style in ("sketch", "colour"):
            assert _pixels(EMOJI / style / f"{stem}.webp")[corners].min() == 255, (style, stem)
        image = _pixels(EMOJI / "images" / f"{stem}.webp")
        assert image[corners].min() >= 249, stem
        assert _pixels(EMOJI / "art" / f"{stem}.webp").any()  # flat drawings may fill the corners
        mosaic = build_emoji.low_res(Image.fromarray(image.astype(np.uint8)))
        difference = np.abs(_pixels(EMOJI / "mosaic" / f"{stem}.webp") - np.asarray(mosaic))
        assert difference.mean() < 3, stem


def test_shipped_bytes_are_those_of_the_card(build_emoji):
    assert build_emoji.tree_digest(EMOJI) in (EMOJI / "README.md").read_text("utf-8")


def test_shipped_size_and_licences():
    assert sum(p.stat().st_size for p in EMOJI.rglob("*") if p.is_file()) <= 18_000_000
    card = (EMOJI / "README.md").read_text("utf-8")
    for words in ("CC BY-SA 4.0", "CC BY 4.0", "MIT", "Microsoft", "OpenMoji", "Twitter"):
        assert words in card
    names = {p.name for p in (EMOJI / "LICENSES").iterdir()}
    assert names == {"CC-BY-4.0.txt", "CC-BY-SA-4.0.txt", "MIT.txt"}
