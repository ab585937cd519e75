"""Calibrated scores: the formula by hand, the gate, saving, and what stays as it was."""

import math

import pytest
import torch
import torch.nn.functional as F

from freestyle.calibration import HubCalibration
from freestyle.config import CalibrationConfig, FreestyleConfig
from freestyle.model import FreestyleRet


def rows(count, width=6, seed=0):
    draws = torch.randn(count, width, generator=torch.Generator().manual_seed(seed))
    return F.normalize(draws, dim=1)


@pytest.fixture
def fitted():
    """Two styles, told apart by the first entry of the code; a third kind is nobody's."""
    calibration = HubCalibration(
        CalibrationConfig(temperature=0.1, strength=0.7, text_strength=0.5), 6, 2
    )
    codes = [torch.randn(50, 2) * 0.1 + torch.tensor([x, 0.0]) for x in (-3.0, 3.0)]
    others = torch.randn(50, 2) * 0.1 + torch.tensor([0.0, 5.0])
    calibration.fit([rows(50, seed=1), rows(30, seed=2)], codes, others, rows(9, seed=3))
    return calibration


def test_a_score_is_the_cosine_minus_what_the_photo_is_lowered_by(fitted):
    gallery, queries = rows(5, seed=4), rows(3, seed=5)
    codes = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    scores = fitted.extend_queries(queries, codes) @ fitted.extend_gallery(gallery).T
    shares = fitted.shares(codes, 3)
    for q in range(3):
        for g in range(5):
            lowered = 0.0
            for style in range(2):
                bank = fitted.bank[fitted.member == style].float()
                mean = sum(math.exp(float(b @ gallery[g]) / 0.1) for b in bank) / len(bank)
                lowered += float(shares[q, style]) * 0.7 * 0.1 * math.log(mean)
            assert float(scores[q, g]) == pytest.approx(
                float(queries[q] @ gallery[g]) - lowered, abs=1e-4
            )


def test_the_gate_knows_its_styles_and_leaves_others_alone(fitted):
    codes = torch.tensor([[-3.0, 0.0], [3.0, 0.0], [0.0, 5.0]])
    shares = fitted.shares(codes, 3)
    assert shares[0, 0] > 0.8 and shares[1, 1] > 0.8 and shares[2].sum() < 0.2


def test_texts_have_a_bank_of_their_own(fitted):
    gallery, texts = rows(5, seed=4), rows(2, seed=6)
    scores = fitted.extend_texts(texts) @ fitted.extend_gallery(gallery).T
    bank = fitted.bank[fitted.member == 2].float()
    mean = (gallery @ bank.T / 0.02).logsumexp(1) - math.log(9)
    assert torch.allclose(scores, texts @ gallery.T - 0.5 * 0.02 * mean, atol=1e-4)


def test_a_hub_is_lowered(fitted):
    hub = fitted.bank[fitted.member == 0].float().mean(0, keepdim=True)
    terms = fitted.photo_terms(F.normalize(torch.cat([hub, -hub]), dim=1))
    assert terms[0, 0] > terms[1, 0]


def test_unfitted_or_switched_off_the_cosines_stay(fitted):
    gallery, queries = rows(5, seed=4), rows(3, seed=5)
    empty = HubCalibration(CalibrationConfig(), 6, 2)
    assert torch.equal(empty.extend_gallery(gallery), gallery)
    off = fitted.extend_queries(queries, torch.zeros(3, 2), calibrate=False)
    assert torch.allclose(off @ fitted.extend_gallery(gallery).T, queries @ gallery.T, atol=1e-6)


def test_without_a_gate_styles_have_equal_shares():
    calibration = HubCalibration(CalibrationConfig(gate="none"), 6)
    calibration.fit([rows(4), rows(5), rows(6)], None, None, None)
    assert torch.allclose(calibration.shares(None, 2), torch.full((2, 3), 1 / 3))


def test_the_bank_is_capped_and_drawn_the_same_again():
    def made():
        calibration = HubCalibration(CalibrationConfig(gate="none", bank=7), 6)
        calibration.fit([rows(40)], None, None, None)
        return calibration.bank

    assert len(made()) == 7 and torch.equal(made(), made())


def test_a_saved_model_scores_as_before(make_model, pictures, tmp_path):
    model = make_model("query-adapter", calibration=CalibrationConfig(text_strength=0.4))
    plain = model.encode_query(pictures) @ model.encode_gallery(pictures).T
    model.calibration.fit([rows(9, 40)], None, None, rows(4, 40, seed=1))
    scores = model.encode_query(pictures) @ model.encode_gallery(pictures).T
    assert not torch.allclose(scores, plain, atol=1e-3)
    model.save_pretrained(tmp_path)
    again = FreestyleRet.from_pretrained(tmp_path, encoder=model.encoder)
    assert torch.equal(again.encode_query(pictures) @ again.encode_gallery(pictures).T, scores)
    frozen = model.encoder.encode_image(
        torch.stack([model.encoder.preprocess(picture) for picture in pictures])
    )
    assert torch.equal(again.complete_gallery(frozen), again.encode_gallery(pictures))


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"gate": "both"}, "calibration.gate"), ({"temperature": 0.0}, "calibration.temperature"),
     ({"strength": 2.0}, "calibration.strength"), ({"bank": 0}, "calibration.bank")],
)  # fmt: skip
def test_refused_settings(refusal, wrong, named):
    values = {"calibration": wrong}
    assert named in refusal(FreestyleConfig.from_dict, values)
