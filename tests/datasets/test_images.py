"""`load_image`: every mode with pixels worked out by hand, and every way a file can be wrong."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from freestyle.datasets import load_image
from freestyle.datasets.images import date_taken, load_bytes
from freestyle.errors import UserError


def pixels(source, **options):
    image = load_image(source, **options)
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


def saved(tmp_path, image, name="a.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def message(source, **options):
    with pytest.raises(UserError) as caught:
        load_image(source, **options)
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and ":" in text
    return text


def test_rgb_from_path_string_and_image(tmp_path):
    image = Image.fromarray(np.array([[[1, 2, 3], [250, 0, 9]]], np.uint8))
    path = saved(tmp_path, image)
    assert pixels(path) == pixels(str(path)) == pixels(image) == [[[1, 2, 3], [250, 0, 9]]]


def test_image_in_memory_is_neither_changed_nor_shared():
    image = Image.new("RGB", (1, 1), (5, 6, 7))
    load_image(image).putpixel((0, 0), (0, 0, 0))
    assert image.getpixel((0, 0)) == (5, 6, 7)


def test_one_pixel_grey_and_one_bit(tmp_path):
    assert pixels(saved(tmp_path, Image.new("L", (1, 1), 77))) == [[[77] * 3]]
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert pixels(saved(tmp_path, bits)) == [[[0] * 3, [255] * 3]]


def test_palette(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    assert pixels(saved(tmp_path, image)) == [[[10, 20, 30], [200, 100, 50]]]


def test_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    for name in ("a.png", "a.gif"):
        path = saved(tmp_path, image, name, transparency=0)
        assert pixels(path) == [[[255] * 3, [200, 100, 50]]]
    # a palette with an alpha for each entry: 51 / 255 = 0.2, 10 * 0.2 + 255 * 0.8 = 206
    path = saved(tmp_path, image, "b.png", transparency=bytes([51, 255]))
    assert pixels(path) == [[[206, 208, 210], [200, 100, 50]]]


def test_alpha_is_laid_on_white(tmp_path):
    rgba = Image.fromarray(np.array([[[0, 0, 0, 0], [100, 0, 255, 51]]], np.uint8))
    # 100 * 0.2 + 204 = 224; 0 + 204; 51 + 204
    assert pixels(saved(tmp_path, rgba)) == [[[255] * 3, [224, 204, 255]]]
    grey = Image.merge("LA", [Image.new("L", (1, 1), 100), Image.new("L", (1, 1), 51)])
    assert pixels(saved(tmp_path, grey)) == [[[224] * 3]]
    assert pixels(Image.new("RGBA", (1, 1), (9, 9, 9, 255)).convert("RGBa")) == [[[9] * 3]]
    assert pixels(Image.merge("LA", [Image.new("L", (1, 1), 8)] * 2).convert("La"))[0][0][0] > 240


def test_colour_key_is_white(tmp_path):
    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert pixels(saved(tmp_path, rgb, transparency=(1, 2, 3))) == [[[255] * 3, [4, 5, 6]]]
    grey = Image.fromarray(np.array([[7, 8]], np.uint8))
    assert pixels(saved(tmp_path, grey, transparency=7)) == [[[255] * 3, [8] * 3]]


def test_sixteen_bit_grey_is_scaled(tmp_path):
    values = np.array([[0, 257, 32896, 65535, 385, 386]], np.uint16)  # v / 257: 1.498, 1.502
    expected = [[[level] * 3 for level in (0, 1, 128, 255, 1, 2)]]
    image = Image.fromarray(values)
    assert image.mode == "I;16"
    assert pixels(image) == expected
    assert pixels(saved(tmp_path, image)) == expected
    assert pixels(saved(tmp_path, image, "a.tif")) == expected
    assert pixels(image.convert("I")) == expected
    big_endian = Image.frombytes("I;16B", (6, 1), values.astype(">u2").tobytes())
    assert pixels(big_endian) == expected
    portable = tmp_path / "a.pgm"
    portable.write_bytes(b"P5 6 1 65535\n" + values.astype(">u2").tobytes())
    assert pixels(portable) == expected


def test_sixteen_bit_colour_key_and_zero_is_white(tmp_path):
    image = Image.fromarray(np.array([[0, 65535]], np.uint16))
    path = tmp_path / "k.png"
    chunk = b"tRNS" + struct.pack(">H", 0)
    data = b"\0" + struct.pack(">HH", 0, 65535)
    path.write_bytes(png(2, 1, 16, data, extra=(chunk,)))
    assert pixels(path) == [[[255] * 3, [255] * 3]]
    assert pixels(saved(tmp_path, image, "z.tif", tiffinfo={262: 0})) in (
        [[[255] * 3, [0] * 3]],
        [[[0] * 3, [255] * 3]],  # a writer that ignores the tag
    )


def test_wide_and_floating_grey():
    assert "outside 0 to 65535" in message(Image.fromarray(np.array([[70000]], np.int32)))
    assert pixels(Image.fromarray(np.array([[0, 0.2, 1]], np.float32))) == [
        [[0] * 3, [51] * 3, [255] * 3]
    ]
    for bad in (2.0, -1.0, np.nan, np.inf):
        assert "floating-point" in message(Image.fromarray(np.array([[bad]], np.float32)))


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (8, 8), (255, 0, 0, 0))  # full cyan
    assert pixels(image)[0][0] == [0, 255, 255]
    assert pixels(saved(tmp_path, image, "c.tif"))[0][0] == [0, 255, 255]
    # Pillow writes and reads CMYK JPEGs as Adobe does, with inverted samples
    decoded = pixels(saved(tmp_path, image, "c.jpg", quality=100))[0][0]
    assert np.abs(np.array(decoded) - [0, 255, 255]).max() <= 3


def test_other_colour_modes():
    assert pixels(Image.new("HSV", (1, 1), (0, 255, 255))) == [[[255, 0, 0]]]
    assert pixels(Image.new("YCbCr", (1, 1), (90, 128, 128))) == [[[90] * 3]]
    white = np.array(pixels(Image.new("LAB", (1, 1), (255, 128, 128))))
    assert white.min() >= 254


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tif"])
def test_animation_gives_the_first_frame(tmp_path, name):
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, red, name, save_all=True, append_images=[blue], **options)
    assert Image.open(path).n_frames == 2
    assert pixels(path)[0][0] == [255, 0, 0]


# the picture 1 2 / 3 4 / 5 6 as a viewer shows it after each EXIF orientation
UPRIGHT = {
    1: [[1, 2], [3, 4], [5, 6]],
    2: [[2, 1], [4, 3], [6, 5]],
    3: [[6, 5], [4, 3], [2, 1]],
    4: [[5, 6], [3, 4], [1, 2]],
    5: [[1, 3, 5], [2, 4, 6]],
    6: [[5, 3, 1], [6, 4, 2]],
    7: [[6, 4, 2], [5, 3, 1]],
    8: [[2, 4, 6], [1, 3, 5]],
    9: [[1, 2], [3, 4], [5, 6]],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_exif_rotation(tmp_path, orientation, name):
    image = Image.fromarray(np.array([[1, 2], [3, 4], [5, 6]], np.uint8) * 20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if name == "a.webp" else {}
    path = saved(tmp_path, image, name, exif=exif, **options)
    red = np.array(pixels(path))[:, :, 0] // 20
    assert red.tolist() == UPRIGHT[orientation]
    if name != "a.tif":  # Pillow itself turns a memory-mapped TIFF wrongly
        opened = np.array(pixels(Image.open(path)))[:, :, 0] // 20
        assert opened.tolist() == UPRIGHT[orientation]


def test_damaged_exif_leaves_the_pixels(tmp_path):
    path = saved(tmp_path, Image.new("RGB", (3, 2), "red"), exif=b"Exif\0\0nonsense")
    assert pixels(path)[0][0] == [255, 0, 0]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tif", "a.ppm"])
@pytest.mark.filterwarnings("ignore")  # the TIFF plugin also warns
def test_cut_files(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path, Image.fromarray(noise), name)
    data = path.read_bytes()
    assert load_image(path).size == (64, 64)
    path.write_bytes(data[: len(data) * 2 // 3])
    text = message(path)
    assert (str(path) in text and "intact copy" in text) or "not a readable picture" in text
    for length in (1, 2, 4, 9, 12, 20, 30, 40, 60, 100):
        path.write_bytes(data[:length])
        assert str(path) in message(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tif"])
def test_garbled_files_give_an_image_or_a_sentence(tmp_path, name):
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    data = saved(tmp_path, Image.fromarray(noise), name).read_bytes()
    path = tmp_path / f"garbled-{name}"
    for _ in range(60):
        garbled = bytearray(data)
        for place in random.integers(0, min(len(data), 200), 6):
            garbled[place] = random.integers(0, 256)
        path.write_bytes(bytes(garbled))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert load_image(path, max_pixels=1_000_000).mode == "RGB"
            except UserError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"a caption, no picture\n", "not a readable picture"),
        (b"\x89PNG\r\n\x1a\n", "not a readable picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "is a HEIC file"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "is an AVIF file"),
        (b'<?xml version="1.0"?>\n<svg xmlns="...">', "is an SVG file"),
        (b"%PDF-1.7\n", "is a PDF file"),
    ],
)
def test_files_that_are_no_pictures(tmp_path, content, expected):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    text = message(path)
    assert str(path) in text and expected in text


def test_missing_file_folder_and_odd_names(tmp_path):
    assert "does not exist" in message(tmp_path / "none.png")
    assert "is a folder" in message(tmp_path)
    assert "cannot be opened" in message("a\0b.png")
    assert "cannot be opened" in message("a" * 5000)
    assert "fromarray" in message(np.zeros((2, 2, 3), np.uint8))
    assert "has no pixels" in message(Image.new("RGB", (0, 3)))


def png(width, height, depth, data, extra=()):
    """A grey PNG from raw rows, each after its filter byte."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0), *extra]
    chunks += [b"IDAT" + zlib.compress(data), b"IEND"]
    body = b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_huge_png_is_refused_before_decoding(tmp_path, monkeypatch):
    path = tmp_path / "huge.png"
    path.write_bytes(png(20_000, 20_000, 1, bytes(20_000 * 2501)))
    decoded = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: decoded.append(self))
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: decoded.append(self))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = message(path)
    assert not decoded
    assert str(path) in text and "20000 x 20000" in text and "max_pixels" in text


def test_the_limit_is_exact_and_the_only_one(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("L", (10, 10), 3))
    assert load_image(path, max_pixels=100).size == (10, 10)
    assert "10 x 10 pixels" in message(path, max_pixels=99)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # another library's setting
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(path).size == (10, 10)
    assert Image.MAX_IMAGE_PIXELS == 20


def test_an_uppercase_or_wrong_extension_does_not_matter(tmp_path):
    path = tmp_path / "photo.JPG"
    Image.new("RGB", (1, 1), "blue").save(path, format="PNG")
    assert pixels(path) == [[[0, 0, 255]]]


def test_bytes_are_read_as_files_are(tmp_path, refusal):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x0132] = "2022:01:02 03:04:05"  # of the last change, where none says when it was taken
    Image.radial_gradient("L").resize((40, 20)).save(path, exif=exif)
    data = path.read_bytes()
    assert load_bytes(data, "it").tobytes() == load_image(path).tobytes()
    assert load_bytes(data, "it").size == (20, 40)
    assert date_taken(data) == "2022-01-02T03:04:05"
    exif.get_ifd(0x8769)[0x9003] = "2021:12:31 23:59:59"
    Image.new("RGB", (4, 4)).save(path, exif=exif)
    assert date_taken(path.read_bytes()) == "2021-12-31T23:59:59"
    assert date_taken(b"no picture") == date_taken(data[:50]) == ""
    assert refusal(load_bytes, data[:-200], "the upload").startswith("the upload is cut")
    assert "too large" in refusal(load_bytes, data, "the upload", max_pixels=799)
