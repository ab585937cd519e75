"""AnimateDiff on diffusers' own pipelines, tiny and with random weights; no part is mocked."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from freestyle.generation.animatediff_settings import (
    TextToImageSettings,
    VideoToVideoSettings,
    named_prompts,
    split_lora,
)


def test_presets_prompts_and_refusals(refusal, tmp_path):
    settings = TextToImageSettings(preset="fast", steps=4)
    assert settings.scheduler == "lcm" and settings.steps == 4 and settings.guidance == 2.0
    assert split_lora(settings.loras[0]) == (
        "wangfuyun/AnimateLCM/sd15_lora_beta.safetensors",
        0.8,
    )
    assert TextToImageSettings().model == "frankjoshua/toonyou_beta6"
    assert len(named_prompts()) >= 10
    assert all("{caption}" in style["prompt"] for style in named_prompts().values())
    for wrong, word in (
        ({"preset": "nothing"}, "preset"),
        ({"preset": "none"}, "model"),
        ({"keep": "best"}, "keep"),
        ({"scheduler": "fancy"}, "scheduler"),
        ({"steps": 0}, "steps"),
        ({"width": 100}, "multiples"),
        ({"prompts": ("baroque",)}, "baroque"),
    ):
        assert word in refusal(TextToImageSettings, **wrong)
    for wrong, word in (
        ({"strength": 0.0}, "strength"),
        ({"strength": 0.1, "steps": 5}, "no step"),
        ({"controlnet": "x/y", "batch": 2}, "one picture"),
    ):
        assert word in refusal(VideoToVideoSettings, **wrong)
    (tmp_path / "own.yaml").write_text("mine: {negative: no}\n")
    assert "no prompt" in refusal(named_prompts, str(tmp_path / "own.yaml"))


def test_which_frame_is_kept():
    from freestyle.generation.animatediff import kept_frame

    flat = Image.new("RGB", (8, 8), "grey")
    board = Image.fromarray((np.indices((8, 8)).sum(axis=0) % 2 * 255).astype(np.uint8))
    assert kept_frame([flat, flat, board, flat], "sharpest") == 2
    assert [kept_frame([flat] * 5, keep) for keep in ("first", "middle", "last")] == [0, 2, 4]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, checkpoints):
    folder = tmp_path_factory.mktemp("checkpoints")
    model, adapter, control = checkpoints.save_diffusion(folder)
    lora = checkpoints.save_lora(folder / "lora", model, adapter)
    return {"model": model, "adapter": adapter, "control": control, "lora": lora}


def options(tiny, **more):
    values = {"preset": "none", "steps": 2, "frames": 2, "dtype": "float32"}
    values |= {"model": tiny["model"], "adapter": tiny["adapter"], **more}
    return [f"--set=art.{name}={value}" for name, value in values.items()]


def rows(out):
    return [json.loads(line) for line in (out / "sidecar" / "art.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_command_draws_from_captions_and_every_row_makes_its_picture_again(
    tiny, photos, tmp_path, generate
):
    from freestyle.generation.remaking import remake

    more = options(tiny, prompts="[cartoon,anime]", keep="sharpest")
    styles = ("--styles", "art,mosaic", "--art", "animatediff")
    out = generate(photos, tmp_path / "out", *styles, *more)
    found = rows(out)
    assert len(found) == 10 and len({row["sha256"] for row in found}) == 10
    for row in found:
        again = remake(row, None)
        assert again == (out / row["file"]).read_bytes()
    row = found[0]
    assert Image.open(io.BytesIO(again)).size == (16, 16)
    assert row["caption"] == "a picture of number 0" and row["caption"] in row["prompt"]
    assert {row["look"] for row in found} == {"cartoon", "anime"}
    assert row["made_by"]["models"][0]["licence"] == "cc0-1.0"
    assert row["made_by"]["models"][0]["revision"].startswith("sha256:")
    assert row["scheduler"] == "DDIMScheduler" and row["negative_prompt"]
    card = (out / "CARD.md").read_text()
    assert "cc0-1.0" in card and "caption alone" in card


@pytest.mark.slow
def test_photo_redrawn_keeps_its_size_and_depends_on_photo_and_strength(
    tiny, photos, tmp_path, generate
):
    from freestyle.datasets.photos import read_photos
    from freestyle.generation.remaking import remake

    made = {}
    for strength in (0.5, 1.0):
        more = options(tiny, side=32, strength=strength, steps=4)
        out = tmp_path / str(strength)
        generate(photos, out, "--styles", "art", "--art", "animatediff-v2v", *more)
        made[strength] = rows(out)
        for row, photo in zip(made[strength], read_photos(photos), strict=True):
            assert (row["width"], row["height"]) == (32, 24)  # 96 x 80, in steps of 8 pixels
            assert remake(row, photo) == (out / row["file"]).read_bytes()
            wrong = remake(row, Image.new("RGB", (96, 80), "red"))
            assert (wrong != (out / row["file"]).read_bytes()) or strength == 1.0
    pairs = zip(made[0.5], made[1.0], strict=True)
    assert all(one["sha256"] != other["sha256"] for one, other in pairs)


@pytest.mark.slow
def test_batch_equals_single_pictures_up_to_rounding(tiny, make_photo):
    from freestyle.generation.animatediff import TextToImage, VideoToVideo
    from freestyle.generation.engine import Item

    paths = {"model": str(tiny["model"]), "adapter": str(tiny["adapter"])}
    shared = {"preset": "none", **paths, "steps": 2, "frames": 2}
    items = [Item(f"{n}", make_photo(n), f"the {n} boat", seed=n + 7) for n in range(3)]
    for engine, settings in (
        (TextToImage, TextToImageSettings(**shared, batch=3)),
        (VideoToVideo, VideoToVideoSettings(**shared, batch=3, side=32)),
    ):
        make = engine(settings)
        for together, item in zip(make(items), items, strict=True):
            alone = make([item])[0]
            gap = np.asarray(together.picture, int) - np.asarray(alone.picture, int)
            assert np.abs(gap).max() <= 1


@pytest.mark.slow
def test_controlnet_lora_scheduler_and_memory_switches_take_effect(tiny, make_photo):
    from freestyle.generation.animatediff import VideoToVideo
    from freestyle.generation.engine import Item

    item = Item("one", make_photo(1), "a red boat", seed=5)
    paths = {"model": str(tiny["model"]), "adapter": str(tiny["adapter"])}

    def drawn(**more):
        settings = VideoToVideoSettings(
            preset="none", **paths, steps=4, frames=2, side=32, strength=1.0, **more
        )
        engine = VideoToVideo(settings)
        made = engine([item])[0]
        return np.asarray(made.picture, int), made.details, engine.describe()

    plain, details, _ = drawn()
    assert details["scheduler"] == "DDIMScheduler"
    for same in ({"attention": "sliced"}, {"vae_slicing": True}, {"decode_chunk": 1}):
        assert np.abs(drawn(**same)[0] - plain).max() <= 1
    controlled, _, described = drawn(controlnet=str(tiny["control"]))
    assert [model["role"] for model in described["models"]][-1] == "ControlNet"
    none, _, _ = drawn(controlnet=str(tiny["control"]), control=0.0)
    assert np.abs(none - plain).max() <= 1 and controlled.shape == plain.shape
    weak, _, described = drawn(loras=(f"{tiny['lora']}:0.0",))
    strong, _, _ = drawn(loras=(f"{tiny['lora']}:4.0",))
    assert np.abs(weak - plain).max() <= 1 < np.abs(strong - plain).max()
    assert described["models"][-1]["role"] == "LoRA"
    for scheduler in ("euler", "euler-ancestral", "dpm++", "pndm", "lcm"):
        other, details, _ = drawn(scheduler=scheduler)
        assert details["scheduler"].lower().startswith(scheduler[:3])
        if scheduler in ("euler-ancestral", "lcm"):  # those that add noise of their own
            assert np.abs(other - plain).max() > 1


@pytest.mark.slow
def test_changed_and_missing_checkpoints_stop_the_run(tiny, photos, tmp_path, generate, refusal):
    import shutil

    from freestyle.generation.remaking import remake

    missing = [f"--set=art.{k}={v}" for k, v in (("model", "no/model"), ("adapter", "no/adapter"))]
    run = (photos, tmp_path / "none", "--styles", "art", "--art", "animatediff")
    assert "no/model" in refusal(generate, *run, "--set=art.preset=none", *missing)
    model = tmp_path / "model"
    shutil.copytree(tiny["model"], model)
    out = tmp_path / "out"
    more = options(tiny, model=model)
    generate(photos, out, "--styles", "art", "--art", "animatediff", *more)
    row = rows(out)[0]
    config = model / "unet" / "config.json"
    config.write_text(config.read_text() + " ")
    assert "other checkpoints" in refusal(remake, row, None)
    (model / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    broken = (photos, tmp_path / "broken", "--styles", "art", "--art", "animatediff", *more)
    assert "cannot load" in refusal(generate, *broken)


@pytest.mark.slow
def test_missing_captions_are_made_by_blip_and_cached(
    tiny, photos, tmp_path, generate, checkpoints
):
    captioner = checkpoints.save_captioner(tmp_path / "blip")
    (photos / "photo0.txt").unlink()
    (photos / "photo1.txt").unlink()
    command = (photos, tmp_path / "out", "--styles", "art,text", "--art", "animatediff")
    more = options(tiny)
    bare = generate(photos, tmp_path / "bare", *command[2:], *more)
    errors = (bare / "errors.jsonl").read_text()
    assert "photo0" in errors and "--captioner" in errors and len(rows(bare)) == 8
    out = generate(*command, "--captioner", str(captioner), *more)
    texts = [json.loads(line) for line in (out / "sidecar" / "text.jsonl").read_text().splitlines()]
    assert [row["given"] for row in texts] == [False, False, *[True] * 8]
    assert texts[0]["made_by"]["models"][0]["role"] == "captioner"
    written = (out / "text" / "photo0.txt").read_text().strip()
    assert written and rows(out)[0]["caption"] == written
    (out / "art" / "photo0.png").unlink()
    (tmp_path / "blip" / "model.safetensors").write_bytes(b"gone: the cached caption suffices")
    before = rows(out)
    generate(*command, "--captioner", str(captioner), "--resume", *more)
    assert rows(out) == before and (out / "art" / "photo0.png").exists()
