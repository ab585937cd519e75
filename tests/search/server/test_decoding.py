"""Strangers' pictures: the same pixels as from a file, or a refusal; bombs harm nobody."""

from __future__ import annotations

import asyncio
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from freestyle.datasets import load_image
from freestyle.search.server import decode_worker
from freestyle.search.server.decoding import Decoder
from freestyle.search.server.limits import Limits
from freestyle.search.server.metrics import Metrics
from freestyle.search.server.refusal import Refusal


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def run(test, processes=1, **limits):
    """Run ``test(decoder)``; returns its value."""

    async def main():
        decoder = Decoder(Limits(**limits), Metrics(), processes)
        await decoder.start()
        try:
            return await asyncio.wait_for(test(decoder), 60)
        finally:
            await decoder.close()

    return asyncio.run(main())


def png_header(width, height):
    """A PNG of that size in a few bytes."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def variants():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 60, 4), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb = noise.convert("RGB")
    yield "turned.jpg", encode(rgb, "JPEG", exif=exif)
    yield "grey.jpg", encode(rgb.convert("L"), "JPEG")
    yield "inks.jpg", encode(rgb.convert("CMYK"), "JPEG")
    yield "clear.png", encode(noise, "PNG")
    yield "clear.webp", encode(noise, "WEBP")
    yield "palette.gif", encode(rgb.convert("P"), "GIF")
    yield "plain.bmp", encode(rgb, "BMP")
    yield (
        "fine.png",
        encode(Image.fromarray(np.arange(5400, dtype=np.uint16).reshape(90, 60)), "PNG"),
    )


def test_same_pixels_as_from_a_file(tmp_path):
    async def test(decoder):
        for name, data in variants():
            (tmp_path / name).write_bytes(data)
            here, there = load_image(tmp_path / name), await decoder.decode(data)
            assert there.mode == "RGB" and np.array_equal(np.asarray(here), np.asarray(there)), name

    run(test)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_large_pictures_are_shrunk(kind):
    ramp = np.linspace(0, 255, 3000)[:, None] * np.ones(1500)
    image = Image.fromarray(np.stack([ramp, ramp[::-1], ramp], -1).astype(np.uint8))
    small = decode_worker.decode(encode(image, kind), 10_000_000, 300)
    assert small.size == (150, 300)
    expected = image.resize((150, 300), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(small).astype(int) - np.asarray(expected))
    assert difference.mean() < 1.0 and difference.max() <= 6


def test_refusals():
    noise = Image.effect_noise((200, 200), 90)
    tiff = encode(noise, "TIFF")
    cases = [
        (b"", 415),
        (b"nothing", 415),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415),
        (tiff, 415),
        (encode(noise, "PPM"), 415),
        (encode(noise, "ICO"), 415),
        (encode(noise, "JPEG")[:2000], 422),
        (encode(noise, "PNG")[:2000], 422),
        (encode(noise, "WEBP")[:500], 422),
        (png_header(100_000, 100_000), 413),
        (png_header(3000, 3000), 413),
        (encode(Image.new("L", (3000, 3000)), "WEBP"), 413),
        (encode(Image.new("L", (3000, 3000)), "GIF"), 413),
    ]

    async def test(decoder):
        for data, status in cases:
            with pytest.raises(Refusal) as refusal:
                await decoder.decode(data)
            assert refusal.value.status == status, (data[:12], refusal.value.sentence)
            assert "/" not in refusal.value.sentence  # no path of this machine
        assert len(decoder.pids()) == 1
        good = await decoder.decode(encode(noise, "PNG"))
        assert good.size == (200, 200)

    run(test, pixels=8_000_000)


def test_memory_is_bounded():
    """A picture within the limit of pixels that needs more memory ends its process, not ours."""
    image = encode(Image.new("RGBA", (4000, 4000)), "PNG")

    async def test(decoder):
        before = decoder.pids()
        with pytest.raises(Refusal) as refusal:
            await decoder.decode(image)
        assert refusal.value.status == 413 and "memory" in refusal.value.sentence
        small = await decoder.decode(encode(Image.new("RGB", (9, 9)), "PNG"))
        assert small.size == (9, 9) and decoder.pids() != before

    run(test, decode_memory=48 << 20)


def test_time_is_bounded():
    slow = encode(Image.effect_noise((2500, 2500), 90), "PNG")

    async def test(decoder):
        before = decoder.pids()
        with pytest.raises(Refusal, match="too long"):
            await decoder.decode(slow)
        assert decoder.alive  # a stranger's picture does not make the server look broken
        while not decoder.pids():
            await asyncio.sleep(0.01)
        assert decoder.pids() != before

    run(test, decode_seconds=0.005)


def test_processes_that_die_are_replaced():
    picture = encode(Image.new("RGB", (9, 9), "red"), "PNG")

    async def test(decoder):
        before = decoder.pids()
        for pid in before:
            os.kill(pid, 9)
        failures = 0
        for _ in range(4):
            try:
                assert (await decoder.decode(picture)).size == (9, 9)
            except Refusal as refusal:
                assert refusal.status == 422
                failures += 1
        assert failures <= len(before) and not set(before) & set(decoder.pids())

    run(test, processes=2)


def test_a_process_that_died_with_nothing_to_do_costs_no_picture():
    picture = encode(Image.new("RGB", (9, 9), "red"), "PNG")

    async def test(decoder):
        before = decoder.pids()
        for pid in before:
            os.kill(pid, 9)
        while any(os.path.exists(f"/proc/{pid}") for pid in before):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        for _ in range(3):
            assert (await decoder.decode(picture)).size == (9, 9)
        assert not set(before) & set(decoder.pids())

    run(test, processes=2)


def test_nothing_leaks_into_the_process(monkeypatch):
    monkeypatch.setenv("FREESTYLE_TOKEN", "a-secret-of-the-server")

    async def test(decoder):
        (pid,) = decoder.pids()
        with open(f"/proc/{pid}/environ", "rb") as file:
            assert b"secret" not in file.read()
        with open(f"/proc/{pid}/maps") as file:
            assert "torch" not in file.read()

    run(test)


def test_who_leaves_does_not_disturb_the_next():
    first = encode(Image.effect_noise((1500, 1500), 90), "PNG")
    second = encode(Image.new("RGB", (9, 9), "red"), "PNG")

    async def test(decoder):
        task = asyncio.create_task(decoder.decode(first))
        await asyncio.sleep(0.01)
        task.cancel()
        image = await decoder.decode(second)
        assert image.size == (9, 9) and image.getpixel((0, 0)) == (255, 0, 0)

    run(test)
