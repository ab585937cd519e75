"""Align the text head: MiniLM sentence embeddings to the frozen image space.

Pairs: every training picture with its title, tags or caption, and ImageNet's 1,000 classes with
their names and definitions. A class has no picture here; its place in feature space follows from
the teacher's own classifier, as in linear discriminant analysis: the class mean is
``mu + s * Sigma w`` for classifier weights ``w`` and the feature covariance ``Sigma``.
Loss: contrastive in both directions with targets softened by image similarity, plus 1 - cosine
(LiT, arXiv 2111.07991; DeViSE, NeurIPS 2013).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from distil import Space, Views
from sources import Picture
from teachers import TEACHERS, load_lite
from torch import Tensor, nn
from tqdm import tqdm

from freestyle.encoders.mini.layers import Tower, Trunk
from freestyle.encoders.mini.model import SEMANTIC_DIM
from freestyle.encoders.mini.text import MiniLM, TextHead


@dataclass
class TextSettings:
    """What was chosen on the validation split."""

    epochs: int = 40
    batch: int = 512
    lr: float = 1e-3
    weight_decay: float = 0.3
    temperature: float = 0.05
    softness: float = 0.02
    regression: float = 1.0
    noise: float = 0.5
    class_share: float = 0.1
    class_scale: float = 1.0
    seed: int = 0


SOURCE_WEIGHT = {"fluent": 3.0, "tuxpaint": 3.0, "openclipart": 1.0}


def class_places(features: Tensor, scale: float) -> Tensor:
    """Teacher features of ImageNet's classes, ``(1000, 3840)``, from pictures' ``(N, 3840)``."""
    places = []
    for part, (version, _) in zip(features.chunk(len(TEACHERS), dim=1), TEACHERS, strict=True):
        weight = load_lite(version).classifier.weight  # (1000, 1280)
        raw = part.float() ** 2
        mean = raw.mean(0)
        step = (weight - weight.mean(0)) @ torch.cov(raw.T)
        length = (raw - mean).norm(dim=1).mean() * scale
        place = (mean + F.normalize(step, dim=1) * length).clamp_min(0).sqrt()
        places.append(F.normalize(place, dim=1))
    return torch.cat(places, dim=1)


def class_texts() -> list[list[str]]:
    """Names and definition of each of ImageNet's 1,000 classes."""
    from timm.data import ImageNetInfo

    info, texts = ImageNetInfo(), []
    for i in range(1000):
        names = [n.strip() for n in info.index_to_description(i).split(",")]
        texts.append(list(dict.fromkeys([*names, info.index_to_description(i, detailed=True)])))
    return texts


def sentence_embeddings(texts: list[str], cache: Path) -> dict[str, Tensor]:
    """MiniLM's embeddings, computed once."""
    path = cache / "sentences.pt"
    known: dict[str, Tensor] = {}
    if path.exists():
        stored = torch.load(path, weights_only=True)
        known = dict(zip(stored["texts"], stored["embeddings"], strict=True))
    missing = sorted({t for t in texts if t not in known}, key=len)
    if missing:
        tower = MiniLM()
        with torch.no_grad():
            for i in tqdm(range(0, len(missing), 64), desc="sentences", mininterval=5):
                chunk = missing[i : i + 64]
                known.update(zip(chunk, tower(chunk).half(), strict=True))
        content = {"texts": list(known), "embeddings": torch.stack(list(known.values()))}
        torch.save(content, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)
    return {t: known[t].float() for t in texts}


def picture_embeddings(tower: Tower, trunk: Trunk, cache: Path) -> Tensor:
    """The student's embedding of every plain training picture, ``(N, E)``, unit norm."""
    views = Views.open(cache)
    parts = []
    with torch.no_grad():
        for start in tqdm(range(0, len(views.last[0]), 128), desc="embed", mininterval=5):
            middle = torch.tensor(views.middle[0][start : start + 128]).float()
            last = torch.tensor(views.last[0][start : start + 128]).float()
            parts.append(tower(middle, last, trunk.summary(last))[:, :SEMANTIC_DIM])
    return torch.cat(parts)


def pairs(
    pictures: list[Picture], images: Tensor, space: Space, cache: Path, settings: TextSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Text embeddings ``(M, 384)``, their image embeddings ``(M, E)`` and sampling weights."""
    texts: list[str] = []
    rows: list[Tensor] = []
    weights: list[float] = []
    for picture, image in zip(pictures, images, strict=True):
        own = picture.texts[:2]
        texts += own
        rows += [image] * len(own)
        weights += [SOURCE_WEIGHT[picture.source] / len(own)] * len(own) if own else []
    features = torch.tensor(Views.open(cache).teacher[0])
    for names, place in zip(
        class_texts(), space(class_places(features, settings.class_scale)), strict=True
    ):
        texts += names
        rows += [place] * len(names)
        weights += [settings.class_share / len(names)] * len(names)
    known = sentence_embeddings(texts, cache)
    return torch.stack([known[t] for t in texts]), torch.stack(rows), torch.tensor(weights)


def align(data: tuple[Tensor, Tensor, Tensor], settings: TextSettings) -> TextHead:
    """Train the head on :func:`pairs`; returns its exponential average."""
    sentences, images, weights = data
    torch.manual_seed(settings.seed)
    head = TextHead(SEMANTIC_DIM)
    nn.init.zeros_(head.down.weight)
    average = copy.deepcopy(head).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
    )
    n, size = len(sentences), settings.batch
    steps = settings.epochs * (n // size)
    for step in tqdm(range(steps), desc="align text", mininterval=5):
        index = torch.multinomial(weights, size)
        text, image = sentences[index], images[index]
        text = F.normalize(text + settings.noise * torch.randn_like(text) / 384**0.5, dim=1)
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        output = F.normalize(head(text), dim=1)
        scores = output @ image.T / settings.temperature
        soft = torch.softmax(image @ image.T / settings.softness, dim=1)
        target = (soft + torch.eye(size)) / 2
        loss = -(target * scores.log_softmax(1)).sum(1).mean() / 2
        loss = loss - (target * scores.log_softmax(0)).sum(0).mean() / 2
        loss = loss + settings.regression * (1 - (output * image).sum(1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        keep = min(0.99, step / (step + 20))
        with torch.no_grad():
            for a, p in zip(average.parameters(), head.parameters(), strict=True):
                a.lerp_(p, 1 - keep)
    return average
