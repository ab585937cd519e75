import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from freestyle.config import StyleConfig
from freestyle.encoders.base import Preprocessing
from freestyle.errors import UserError
from freestyle.frozen import Pictures
from freestyle.training.space_module import StyleSpaceModule

CONFIG = StyleConfig(
    network="vgg16", weights="random", taps=("relu1_2",), resolution=32, n_components=4, n_bases=2
)


def predict(module, pictures):
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.predict(module, DataLoader(pictures, batch_size=5), return_predictions=False)


def test_codes_stand_in_the_order_of_the_pictures_and_two_styles_part(dsr):
    paths = [dsr / style / f"{i}.png" for style in ("sketch", "mosaic") for i in range(12)]
    pictures = Pictures(paths, Preprocessing(32, "exact"))
    module = StyleSpaceModule(CONFIG)
    predict(module, pictures)
    direct = module.reader(torch.stack([pictures[i][1] for i in range(24)]))
    torch.testing.assert_close(module.codes.float(), direct, atol=2e-3, rtol=1e-2)
    space = module.fit_space()
    nearest = space.weights(direct).argmax(dim=1).numpy()
    # Unlabelled bases, yet each style gathers at one of them.
    assert (nearest[:12] == np.bincount(nearest[:12]).argmax()).mean() >= 0.9
    assert (nearest[12:] == 1 - np.bincount(nearest[:12]).argmax()).mean() >= 0.9


def test_unreadable_pictures_are_left_out_of_the_fit(dsr, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"text")
    paths = [*(dsr / "sketch" / f"{i}.png" for i in range(6)), broken]
    module = StyleSpaceModule(CONFIG)
    predict(module, Pictures(paths, Preprocessing(32, "exact"), on_broken="skip"))
    assert module.codes[6].isnan().all()
    assert module.fit_space().n_codes == 6


def test_fitting_needs_codes():
    with pytest.raises(UserError, match="no style codes yet"):
        StyleSpaceModule(CONFIG).fit_space()
