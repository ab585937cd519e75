"""Training with a prompted gallery, from the command line to the saved model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from freestyle import FreestyleRet
from freestyle.datasets.readers import open_split
from freestyle.errors import UserError
from freestyle.evaluation.figures import read_curves
from freestyle.training.callbacks import BestCheckpoint
from freestyle.training.cli import main
from freestyle.training.losses import StepPhotos
from freestyle.training.photos import embed_photos

ROOT = Path(__file__).parents[2]
TINY = [
    "--model.encoder=random:clip-tiny",
    "--model.style.network=vgg16",
    "--model.style.weights=random",
    "--model.style.taps=[relu1_2]",
    "--model.style.resolution=32",
    "--model.style.n_components=8",
    "--model.prompts.hidden=8",
    "--model.gallery=prompted",
    "--model.learning_rate=0.01",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.log_every_n_steps=1",
]


def arguments(dsr, out, *extra):
    return [
        "fit",
        f"--data.root={dsr}",
        "--data.batch_size=24",
        f"--model.cache_dir={out}/cache",
        f"--trainer.default_root_dir={out}",
        "--trainer.max_epochs=1",
        *TINY,
        *extra,
    ]


def parameters(out):
    model = FreestyleRet.from_pretrained(out / "model")
    return {k: v.detach().clone() for k, v in model.trained_parameters().items()}


def losses(out):
    return read_curves(out / "metrics.csv")[0][1]


@pytest.mark.parametrize("loss", ["gallery", "in-batch", "triplet"])
def test_every_loss_trains_and_validates_the_photos_as_the_model_embeds_them(dsr, tmp_path, loss):
    extra = [f"--model.loss.name={loss}", "--model.cache=codes", "--trainer.max_epochs=2"]
    main(arguments(dsr, tmp_path, *extra))
    model = FreestyleRet.from_pretrained(tmp_path / "model")
    assert model.config.gallery == "prompted"
    split = open_split(dsr, "val", ["sketch", "art", "mosaic"])
    photos = model.encode_gallery(split.gallery)
    untrained = FreestyleRet.from_encoder("random:clip-tiny", encoder=model.encoder)
    assert (photos - untrained.encode_gallery(split.gallery)).abs().max() > 1e-3
    means = []
    _, recall = read_curves(tmp_path / "metrics.csv")
    for style, queries in split.queries.items():
        scores = model.encode_query(queries.sources) @ photos.T
        found = float((scores.argmax(dim=1) == torch.arange(8)).float().mean())
        means.append((found, list(recall[style][1])))
    best = max(range(2), key=lambda epoch: sum(curve[epoch] for _, curve in means))
    assert [found for found, _ in means] == pytest.approx([curve[best] for _, curve in means])


def test_cached_features_change_nothing(dsr, tmp_path):
    for cache in ("features", "codes"):
        main(arguments(dsr, tmp_path / cache, f"--model.cache={cache}"))
    # The feature cache holds patch tokens in bfloat16.
    assert losses(tmp_path / "codes") == pytest.approx(losses(tmp_path / "features"), rel=3e-2)


def test_both_sides_train(dsr, tmp_path, monkeypatch):
    """Steps differ from those in which photos pass on no gradient."""
    main(arguments(dsr, tmp_path / "both", "--model.loss.name=in-batch"))
    get = StepPhotos.__getitem__
    monkeypatch.setattr(StepPhotos, "__getitem__", lambda self, rows: get(self, rows).detach())
    main(arguments(dsr, tmp_path / "one", "--model.loss.name=in-batch"))
    ours, theirs = parameters(tmp_path / "both"), parameters(tmp_path / "one")
    assert all((value - theirs[name]).abs().max() > 1e-4 for name, value in ours.items())


def test_the_styled_form_with_banks_and_drawings_trains(dsr, tmp_path):
    main(
        arguments(
            dsr,
            tmp_path,
            "--model.query_map=styled",
            "--model.prompts.shallow=none",
            "--model.prompts.deep=none",
            "--model.calibration.gate=style",
            "--data.synthetic=1",
        )
    )
    model = FreestyleRet.from_pretrained(tmp_path / "model")
    photos = model.encode_gallery(open_split(dsr, "test", ["sketch"]).gallery)
    assert photos.shape == (8, 40 + 3 + 1)
    assert torch.equal(photos[:, 40:], model.calibration.photo_terms(photos[:, :40]))
    assert photos[:, 40:43].abs().min() > 0


def test_texts_are_drawn_to_photos_that_move(dsr, tmp_path):
    extra = ["--model.prompts.text_tokens=2", "--model.loss.name=triplet"]
    main(arguments(dsr, tmp_path, *extra))
    assert all(torch.tensor(losses(tmp_path)).isfinite())
    model = FreestyleRet.from_pretrained(tmp_path / "model")
    frozen = FreestyleRet.from_encoder("random:clip-tiny", encoder=model.encoder)
    assert (model.encode_text(["a"]) - frozen.encode_text(["a"])).abs().max() > 1e-4


@pytest.mark.parametrize("extra", [["--model.cache=codes"], ["--model.method=fine-tune"]])
def test_unreadable_photos_are_left_out(dsr, tmp_path, extra):
    root = tmp_path / "data"
    shutil.copytree(dsr, root)
    (root / "images" / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"3\.png"):
        main(arguments(root, tmp_path / "stop", *extra))
    cli = main(arguments(root, tmp_path / "skip", "--data.on_broken=skip", *extra))
    assert len(cli.datamodule.items("train")) == 69  # its three queries go with it
    module = cli.model
    assert len(module.caches.gallery["train"][1]) == 23
    module.eval()
    rows = torch.tensor([2, 3, 22])
    with torch.no_grad():
        found = embed_photos(module, "train", rows)
    paths = [cli.datamodule.train.gallery[i] for i in (2, 4, 23)]
    torch.testing.assert_close(found, module.model.encode_gallery(paths), atol=2e-3, rtol=0)


def test_pixels_unread_by_anything_else_are_opened_once_to_find_the_broken(dsr, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(dsr, root)
    (root / "images" / "3.png").write_bytes(b"no picture")
    extra = ["--model.cache=codes", "--model.method=vpt-deep", "--data.on_broken=skip"]
    cli = main(arguments(root, tmp_path / "skip", *extra))  # no style codes either
    assert len(cli.model.caches.gallery["train"][1]) == 23


def test_stopped_in_mid_epoch_a_run_resumes_to_the_same_end(dsr, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    extra = ["--data.batch_size=12", "--checkpoint_every=2", "--trainer.max_epochs=2"]
    main(arguments(dsr, whole, *extra))
    save = BestCheckpoint.on_train_batch_end

    def stop(self, trainer, *args, **kwargs):
        save(self, trainer, *args, **kwargs)
        if trainer.global_step == 8:  # of six an epoch
            raise UserError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(BestCheckpoint, "on_train_batch_end", stop)
        with pytest.raises(UserError, match="stopped"):
            main(arguments(dsr, broken, *extra))
    main(arguments(dsr, broken, *extra, "--ckpt_path=last"))
    for name, value in parameters(whole).items():
        assert torch.equal(value, parameters(broken)[name]), name


def test_untrained_methods_are_refused(dsr, tmp_path):
    with pytest.raises(UserError, match="trains nothing that a photo passes through"):
        main(arguments(dsr, tmp_path, "--model.method=zero-shot"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_share_the_photos_and_validate_the_same_model(dsr, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(dsr, root)
    records = json.loads((root / "val.json").read_text())
    (root / "val.json").write_text(json.dumps(records[:7]))  # shares of four and three
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    two = ["--trainer.devices=2", "--trainer.strategy=ddp"]
    command = arguments(root, tmp_path / "two", *two)
    subprocess.run([sys.executable, "train.py", *command], check=True, cwd=ROOT, env=env)
    model = FreestyleRet.from_pretrained(tmp_path / "two" / "model")
    split = open_split(root, "val", ["sketch", "art", "mosaic"])
    photos = model.encode_gallery(split.gallery)
    _, recall = read_curves(tmp_path / "two" / "metrics.csv")
    for style, queries in split.queries.items():
        scores = model.encode_query(queries.sources) @ photos.T
        found = float((scores.argmax(dim=1) == torch.arange(7)).float().mean())
        assert found == pytest.approx(float(recall[style][1][-1]), abs=1e-6), style
