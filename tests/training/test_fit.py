"""The training command on a tiny data set, from the command line to the saved model."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import lightning as L
import pytest
import torch

from freestyle import FreestyleRet, StyleSpace
from freestyle.errors import UserError
from freestyle.evaluation.figures import read_curves
from freestyle.training.callbacks import BestCheckpoint
from freestyle.training.cli import SPACE_FILE, main
from freestyle.training.data import RetrievalData
from freestyle.training.module import RetrievalModule

ROOT = Path(__file__).parents[2]
TINY = [
    "--model.encoder=random:clip-tiny",
    "--model.style.network=vgg16",
    "--model.style.weights=random",
    "--model.style.taps=[relu1_2]",
    "--model.style.resolution=32",
    "--model.style.n_components=8",
    "--model.prompts.hidden=8",
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
        "--data.batch_size=10",
        f"--model.cache_dir={out}/cache",
        f"--trainer.default_root_dir={out}",
        "--trainer.max_epochs=2",
        *TINY,
        *extra,
    ]


def final_metrics(out):
    loss, recall = read_curves(out / "metrics.csv")
    return float(loss[1][-1]), {style: float(y[-1]) for style, (_, y) in recall.items()}


def parameters(out):
    model = FreestyleRet.from_pretrained(out / "model")
    return {k: v.detach().clone() for k, v in model.trained_parameters().items()}


@pytest.fixture(scope="module")
def trained(dsr, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    cli = main(arguments(dsr, out))
    return out, cli


def test_a_run_leaves_space_model_curve_and_config(trained):
    out, _ = trained
    space = StyleSpace.load(out / SPACE_FILE)
    model = FreestyleRet.from_pretrained(out / "model")
    assert torch.equal(space.bases, model.space.bases)
    assert model.config.method == "freestyle"
    assert model.config.seed == 0
    assert model.config.styles == ("sketch", "art", "mosaic")
    loss, recall = read_curves(out / "metrics.csv")
    assert set(recall) == {"sketch", "art", "mosaic"}
    assert len(loss[1]) == 2 * 8  # 72 queries in batches of 10: the last holds two
    assert (out / "config.yaml").is_file()


def test_the_space_is_fitted_on_all_training_queries_of_all_styles(trained):
    out, _ = trained
    assert StyleSpace.load(out / SPACE_FILE).n_codes == 3 * 24


def test_the_saved_model_is_the_best_by_mean_validation_reciprocal_rank(trained):
    out, _ = trained
    means = torch.tensor([row["val/MRR"] for row in read_curve(out / "metrics.csv").values()])
    best = torch.load(out / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == int(means.argmax())
    saved = FreestyleRet.from_pretrained(out / "model")
    for name, value in saved.trained_parameters().items():
        assert torch.equal(value, best["state_dict"][f"model.{name}"])


def test_checkpoints_hold_no_frozen_network(trained):
    out, _ = trained
    state = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert not [k for k in state if ".encoder." in k or ".reader." in k]
    assert any(".prompts." in k for k in state)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(dsr, trained, tmp_path):
    out, _ = trained
    main(arguments(dsr, tmp_path / "same"))
    main(arguments(dsr, tmp_path / "other", "--seed_everything=1"))
    assert final_metrics(tmp_path / "same")[0] == pytest.approx(final_metrics(out)[0], abs=1e-6)
    assert final_metrics(tmp_path / "other")[0] != pytest.approx(final_metrics(out)[0], abs=1e-6)


def test_cached_features_change_nothing(dsr, trained, tmp_path):
    out, _ = trained
    main(arguments(dsr, tmp_path, "--model.cache=codes"))
    # The feature cache holds patch tokens in bfloat16.
    assert final_metrics(tmp_path)[0] == pytest.approx(final_metrics(out)[0], rel=2e-2)


@pytest.mark.parametrize("method", ["query-adapter", "vpt-shallow", "vpt-deep"])
def test_controls_train_with_the_same_command(dsr, tmp_path, method):
    main(arguments(dsr, tmp_path, f"--model.method={method}"))
    assert not (tmp_path / SPACE_FILE).exists()  # nothing reads the style
    losses = read_curves(tmp_path / "metrics.csv")[0][1]
    assert len(losses) == 16
    assert FreestyleRet.from_pretrained(tmp_path / "model").config.method == method


def test_half_of_the_patches_train(dsr, tmp_path):
    half, whole = tmp_path / "half", tmp_path / "whole"
    main(arguments(dsr, half, "--model.patch_keep=0.5", "--trainer.max_epochs=1"))
    main(arguments(dsr, whole, "--trainer.max_epochs=1"))
    ours, theirs = parameters(half), parameters(whole)
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())


STYLED = [
    "--model.query_map=styled",
    "--model.prompts.shallow=none",
    "--model.prompts.deep=none",
    "--model.prompts.code_dropout=0.1",
    "--model.calibration.gate=style",
    "--model.calibration.text_strength=0.5",
    "--data.synthetic=2",
]


@pytest.fixture(scope="module")
def styled(dsr, tmp_path_factory):
    out = tmp_path_factory.mktemp("styled")
    return out, main(arguments(dsr, out, *STYLED))


def test_synthetic_styles_are_trained_on_and_not_validated(dsr, styled):
    _, cli = styled
    data = cli.datamodule
    assert data.train_styles == ["sketch", "art", "mosaic", "synthetic 1", "synthetic 2"]
    photos = len(data.train.gallery)
    assert len(data.items("train")) == 5 * photos
    assert len(data.items("val")) == 3 * len(data.val.gallery)
    data.decode = True
    items, first = data.items("train"), 3 * photos
    drawn = [items[first + shift]["pixels"] for shift in (0, photos)]
    assert not torch.equal(*drawn)
    assert torch.equal(drawn[0], data.items("train")[first]["pixels"])
    assert items[first]["group"] == data.train.gallery_groups[0]


def test_the_calibration_is_fitted_on_the_best_model_and_saved(styled):
    out, cli = styled
    model = FreestyleRet.from_pretrained(out / "model")
    bank = model.calibration
    assert bank.n_styles == 3
    sizes = [int((bank.member == number).sum()) for number in range(4)]
    photos = len(cli.datamodule.train.gallery)
    assert sizes == [photos] * 4  # three styles, and captions
    paths = list(cli.datamodule.train.queries["art"].sources)
    again = model.encode_query(paths)[:, : model.encoder.embed_dim]
    assert torch.allclose(again, bank.bank[bank.member == 1].float(), atol=2e-3)


def test_cached_features_change_nothing_for_drawn_styles_either(dsr, styled, tmp_path):
    main(arguments(dsr, tmp_path, *STYLED, "--model.cache=codes"))
    assert final_metrics(tmp_path)[0] == pytest.approx(final_metrics(styled[0])[0], rel=2e-3)


@pytest.mark.parametrize("keep", ["0", "1.5"])
def test_patch_keep_outside_its_range(dsr, tmp_path, keep):
    with pytest.raises(UserError, match=r"model\.patch_keep is .*\(0, 1\]"):
        main(arguments(dsr, tmp_path, f"--model.patch_keep={keep}"))


@pytest.mark.parametrize("loss", ["in-batch", "triplet"])
def test_other_losses_and_random_views_train(dsr, tmp_path, loss):
    main(arguments(dsr, tmp_path, f"--model.loss.name={loss}", "--model.views=2"))
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_text_prompts_train_with_captions(dsr, tmp_path):
    main(arguments(dsr, tmp_path, "--model.prompts.text_tokens=2"))
    model = FreestyleRet.from_pretrained(tmp_path / "model")
    frozen = FreestyleRet.from_encoder("random:clip-tiny")
    assert model.text_prompts.shape == (2, model.encoder.text_width)
    moved = model.encode_text(["a thing"]) - frozen.encode_text(["a thing"])
    assert moved.abs().max() > 1e-4


def test_training_lowers_the_loss(dsr, tmp_path):
    extra = ["--trainer.max_epochs=12", "--model.learning_rate=0.02"]
    main(arguments(dsr, tmp_path, *extra))
    losses = read_curves(tmp_path / "metrics.csv")[0][1]
    assert losses[-8:].mean() < losses[:8].mean() - 0.1


def test_a_given_space_is_used_and_a_wrong_one_refused(dsr, trained, tmp_path):
    out, _ = trained
    given = f"--model.space={out / SPACE_FILE}"
    main(arguments(dsr, tmp_path / "given", given))
    assert not (tmp_path / "given" / SPACE_FILE).exists()
    with pytest.raises(UserError, match=r"bases of width 8"):
        main(arguments(dsr, tmp_path / "wrong", given, "--model.style.n_bases=3"))
    with pytest.raises(UserError, match="fitted with style reader"):
        main(arguments(dsr, tmp_path / "other", given, "--model.style.resolution=16"))


def test_methods_without_parameters_are_refused():
    with pytest.raises(UserError, match="trains nothing"):
        RetrievalModule(method="zero-shot", encoder="random:clip-tiny")


def test_an_unfitted_space_is_refused_outside_the_command(dsr, trained):
    _, cli = trained
    data = RetrievalData(str(dsr))
    module = RetrievalModule(
        encoder="random:clip-tiny", style=cli.model.model.config.style, cache="codes"
    )
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.raises(UserError, match="not fitted"):
        trainer.fit(module, data)


def test_unreadable_queries_stop_the_run_or_are_left_out(dsr, tmp_path):
    import shutil

    root = tmp_path / "data"
    shutil.copytree(dsr, root)
    (root / "sketch" / "3.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"3\.png"):
        main(arguments(root, tmp_path / "stop"))
    cli = main(arguments(root, tmp_path / "skip", "--data.on_broken=skip"))
    assert len(cli.datamodule.items("train")) == 71


def read_curve(path):
    """Validation rows by step."""
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["val/R@1"]]
    return {
        int(row["step"]): {k: float(v) for k, v in row.items() if k.startswith("val/")}
        for row in rows
    }


def test_a_resumed_run_keeps_its_curve_and_a_new_one_begins_anew(dsr, tmp_path):
    out = tmp_path / "run"
    path = out / "metrics.csv"
    main(arguments(dsr, out, "--trainer.max_epochs=2"))
    first = read_curve(path)
    assert len(first) == 2
    main(arguments(dsr, out, "--trainer.max_epochs=3", "--ckpt_path=last"))
    resumed = read_curve(path)
    assert len(resumed) == 3
    assert {step: resumed[step] for step in first} == first
    shutil.rmtree(out / "checkpoints")
    main(arguments(dsr, out, "--trainer.max_epochs=1"))
    assert len(read_curve(path)) == 1


def test_stopped_at_an_epoch_end_a_run_resumes_to_the_same_end(dsr, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main(arguments(dsr, whole, "--trainer.max_epochs=3"))
    save = BestCheckpoint.on_train_epoch_end

    def stop(self, trainer, module):
        save(self, trainer, module)
        if trainer.current_epoch == 1:
            raise UserError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(BestCheckpoint, "on_train_epoch_end", stop)
        with pytest.raises(UserError, match="stopped"):
            main(arguments(dsr, broken, "--trainer.max_epochs=3"))
    main(arguments(dsr, broken, "--trainer.max_epochs=3", "--ckpt_path=last"))
    assert read_curve(broken / "metrics.csv") == read_curve(whole / "metrics.csv")
    for name, value in parameters(whole).items():
        assert torch.equal(value, parameters(broken)[name]), name


def test_a_curve_that_is_no_table_stops_a_resumed_run(dsr, tmp_path):
    out = tmp_path / "run"
    main(arguments(dsr, out, "--trainer.max_epochs=1"))
    (out / "metrics.csv").write_text("these,are\nno,metrics\n")
    with pytest.raises(UserError, match=r"metrics\.csv is no table"):
        main(arguments(dsr, out, "--trainer.max_epochs=2", "--ckpt_path=last"))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_killed_in_mid_epoch_a_run_resumes_to_the_same_end(dsr, tmp_path):
    extra = ["--trainer.max_epochs=6", "--data.batch_size=4", "--checkpoint_every=5"]

    def command(out, *more):
        return [sys.executable, "train.py", *arguments(dsr, out, *extra, *more)]

    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(command(whole), check=True, cwd=ROOT, env=env)
    process = subprocess.Popen(command(broken), cwd=ROOT, env=env)
    last = broken / "checkpoints" / "last.ckpt"
    seen: set[int] = set()
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if last.is_file():
            seen.add(last.stat().st_mtime_ns)
        if len(seen) >= 7:
            break
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    step = torch.load(last, weights_only=True)["global_step"]
    assert 0 < step < 6 * 18
    assert step % 18 != 0, "the kill was to hit the middle of an epoch"
    subprocess.run(command(broken, "--ckpt_path=last"), check=True, cwd=ROOT, env=env)
    for name, value in parameters(whole).items():
        torch.testing.assert_close(parameters(broken)[name], value, atol=1e-3, rtol=1e-3)
    curves = [read_curve(folder / "metrics.csv") for folder in (whole, broken)]
    assert list(curves[0]) == list(curves[1])  # the epochs before the kill are still there
    for step, row in curves[0].items():
        assert row == pytest.approx(curves[1][step], abs=1e-3), step
    ours = json.loads((broken / "model" / "config.json").read_text())
    assert ours == json.loads((whole / "model" / "config.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_two_processes_train_like_one(dsr, tmp_path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    one = [sys.executable, "train.py", *arguments(dsr, tmp_path / "one", "--data.batch_size=12")]
    two = [
        sys.executable,
        "train.py",
        *arguments(dsr, tmp_path / "two", "--data.batch_size=6"),
        "--trainer.devices=2",
        "--trainer.strategy=ddp",
    ]
    subprocess.run(one, check=True, cwd=ROOT, env=env)
    subprocess.run(two, check=True, cwd=ROOT, env=env)
    spaces = [StyleSpace.load(tmp_path / name / SPACE_FILE) for name in ("one", "two")]
    torch.testing.assert_close(spaces[0].bases, spaces[1].bases, atol=1e-3, rtol=1e-3)
    single, double = parameters(tmp_path / "one"), parameters(tmp_path / "two")
    for name, value in single.items():
        torch.testing.assert_close(double[name], value, atol=2e-3, rtol=2e-2)
