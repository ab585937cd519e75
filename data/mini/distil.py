"""Train the image tower to give, for any view of a picture, what the teachers see in it, and where.

The first target is the joined teacher feature, mostly centred, rotated to 512 dimensions by PCA, a
little whitened so that its finer axes count too, and mixed with that of the plain picture, so that
the student is steadier than its teachers under blur, low resolution and lost colour. Loss:
1 - cosine, plus the KL divergence between the two batches' similarity matrices (relational
distillation, arXiv 1904.05068 / 1907.09682). The second target, with the same loss, is the layout:
the trunk's stride-16 map of the same view averaged on a 3 x 3 grid, standardised, and reduced by
PCA.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path

import emoji
import numpy as np
import torch
import torch.nn.functional as F
from teachers import folded_trunk, load_lite
from torch import Tensor, nn
from tqdm import tqdm

from freestyle.encoders.mini.layers import LAYOUT_GRID, Tower, Trunk
from freestyle.encoders.mini.model import LAYOUT_DIM, SEMANTIC_DIM
from freestyle.encoders.mini.model import new_tower as empty_tower


@dataclass
class Settings:
    """What was chosen on the validation split."""

    epochs: int = 10
    batch: int = 64
    lr: float = 5e-4
    weight_decay: float = 0.05
    centring: float = 0.85
    whitening: float = 0.25
    plain_share: float = 0.5
    relation: float = 1.0
    temperature: float = 0.05
    ema: float = 0.995
    token_scale: float = 0.25
    layout_whitening: float = 0.5
    seed: int = 0


@dataclass
class Views:
    """Memory-mapped caches, one array per view."""

    middle: list[np.ndarray]
    last: list[np.ndarray]
    teacher: list[np.ndarray]

    @classmethod
    def open(cls, cache: Path) -> Views:
        """Every finished view below ``cache``."""
        stems = sorted(p.name[:7] for p in (cache / "views").glob("view_*.teacher.npy"))

        def load(kind: str) -> list[np.ndarray]:
            return [np.load(cache / "views" / f"{s}.{kind}.npy", mmap_mode="r") for s in stems]

        return cls(load("middle"), load("last"), load("teacher"))

    def take(self, kind: str, view: np.ndarray, index: np.ndarray) -> Tensor:
        """Rows ``index[i]`` of view ``view[i]``, float32."""
        arrays = getattr(self, kind)
        rows = np.empty((len(index), *arrays[0].shape[1:]), dtype=np.float16)
        for v in np.unique(view):
            where = np.nonzero(view == v)[0]
            rows[where] = arrays[v][index[where]]
        return torch.from_numpy(rows).float()


@dataclass
class Space:
    """The rotation of teacher features into the student's space."""

    mean: Tensor  # (3840,)
    basis: Tensor  # (3840, E), axes of unit length times their standard deviation ** -whitening
    centring: float

    @classmethod
    def fit(cls, features: Tensor, dim: int, centring: float, whitening: float) -> Space:
        """PCA of ``(N, 3840)``; the first axis is the mean's direction."""
        mean = features.mean(0)
        axis = F.normalize(mean, dim=0)
        rest = features - features @ axis[:, None] * axis
        rest = rest - rest.mean(0)
        _, vectors = torch.linalg.eigh(rest.T @ rest)
        axes = torch.cat([axis[:, None], vectors[:, -(dim - 1) :]], dim=1)
        return cls(mean, axes * (features @ axes).std(0) ** -whitening, centring)

    def __call__(self, features: Tensor) -> Tensor:
        """``(B, 3840) -> (B, E)``, unit norm."""
        return F.normalize((features.float() - self.centring * self.mean) @ self.basis, dim=1)


@dataclass
class LayoutSpace:
    """The stride-16 map on a 3 x 3 grid, rotated into the student's layout space."""

    mean: Tensor  # (9 * 112,), cell by cell
    deviation: Tensor  # (9 * 112,)
    centre: Tensor  # (9 * 112,), of the standardised unit-norm rows
    basis: Tensor  # (9 * 112, L)

    @classmethod
    def fit(cls, middle: np.ndarray, dim: int, whitening: float) -> LayoutSpace:
        """PCA over maps ``(N, 112, 10, 10)``."""
        rows = torch.cat(
            [cells(torch.from_numpy(part).float()) for part in np.array_split(middle, 20)]
        )
        mean, deviation = rows.mean(0), rows.std(0) + 1e-3
        unit = F.normalize((rows - mean) / deviation, dim=1)
        centre = unit.mean(0)
        _, sizes, vectors = torch.linalg.svd(unit - centre, full_matrices=False)
        weights = (sizes[:dim] / sizes[0]) ** -whitening
        return cls(mean, deviation, centre, vectors[:dim].T * weights)

    def __call__(self, middle: Tensor) -> Tensor:
        """``(B, 112, 10, 10) -> (B, L)``, unit norm."""
        unit = F.normalize((cells(middle.float()) - self.mean) / self.deviation, dim=1)
        return F.normalize((unit - self.centre) @ self.basis, dim=1)


def cells(middle: Tensor) -> Tensor:
    """Maps ``(B, C, H, W)`` averaged on the layout's grid: ``(B, 9 C)``, cell by cell."""
    return F.adaptive_avg_pool2d(middle, LAYOUT_GRID).flatten(2).transpose(1, 2).flatten(1)


def new_tower(views: Views, trunk: Trunk, token_scale: float) -> Tower:
    """A fresh tower: token projections see standardised channels, the summary tokens a PCA.

    The 1,024 principal axes are mixed at random, so that each token holds as much as the others.
    Small tokens leave the outcome to the blocks: where these only touch up what passes by them on
    the residual path, prompts, which act through the blocks, cannot steer either.
    """
    tower = empty_tower()
    for module in tower.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(tower.positions, std=0.02)
    for layer, maps in ((tower.middle, views.middle[0]), (tower.last, views.last[0])):
        sample = torch.from_numpy(np.array(maps[::5])).float()
        if layer is tower.middle:
            sample = F.pixel_unshuffle(sample, 2)
        sample = sample.transpose(0, 1).flatten(1)
        mean, std = sample.mean(1), sample.std(1)  # (C,)
        nn.init.normal_(layer.weight, std=token_scale * layer.in_features**-0.5)
        layer.weight.data /= std
        layer.bias.data = -layer.weight.data @ mean
    with torch.no_grad():
        summary = trunk.summary(torch.from_numpy(np.array(views.last[0][::2])).float())
        mean = summary.mean(0)
        _, _, vectors = torch.linalg.svd(summary - mean, full_matrices=False)
        count = tower.summary.out_features
        mixing = torch.linalg.qr(torch.randn(count, count))[0]
        axes = mixing @ vectors[:count]  # (4 D, 1280)
        scale = token_scale / ((summary - mean) @ axes.T).std()
        tower.summary.weight.copy_(axes * scale)
        tower.summary.bias.copy_(-axes @ mean * scale)
    return tower


@torch.no_grad()
def start_heads(
    tower: Tower, trunk: Trunk, views: Views, space: Space, layout: LayoutSpace
) -> None:
    """Set both heads by ridge regression from the untrained blocks' output to their targets."""
    pooled, patches, what, where = [], [], [], []
    for rows in torch.arange(0, len(views.last[0]), 2).split(256):
        middle, last = (
            torch.from_numpy(np.array(kind[0][rows.numpy()])).float()
            for kind in (views.middle, views.last)
        )
        x = tower.tokens(middle, last, trunk.summary(last))
        for block in tower.blocks:
            x = block(x)
        x = tower.norm(x)
        pooled.append(tower.pooled(x))
        patches.append(tower.cells(x))  # (B, 9, D)
        what.append(space(torch.from_numpy(np.array(views.teacher[0][rows.numpy()]))))
        where.append(((cells(middle) - layout.mean) / layout.deviation).unflatten(1, (9, -1)))
    weight, bias = ridge(torch.cat(pooled), torch.cat(what))
    scale = len(bias) ** 0.5  # weights of the size that the optimiser's steps are made for
    tower.head.weight.copy_(weight * scale)
    tower.head.bias.copy_(bias * scale)
    weight, bias = ridge(torch.cat(patches).flatten(0, 1), torch.cat(where).flatten(0, 1))
    tower.cell.weight.copy_(weight)
    tower.cell.bias.copy_(bias)
    tower.layout.weight.copy_(layout.basis.T)
    norms = torch.cat(where).flatten(1).norm(dim=1).mean()
    tower.layout.bias.copy_(-(layout.centre * norms) @ layout.basis)


def ridge(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Weight ``(E, D)`` and bias ``(E,)`` of a ridge regression ``(N, D) -> (N, E)``."""
    mean, target = x.mean(0), y.mean(0)
    x = x - mean
    penalty = 0.1 * x.square().sum(0).mean() * torch.eye(x.shape[1])
    weight = torch.linalg.solve(x.T @ x + penalty, x.T @ (y - target)).T
    return weight, target - weight @ mean


def relational(student: Tensor, target: Tensor, temperature: float) -> Tensor:
    """KL divergence of the batch's softmaxed similarities, own pair left out; unit-norm rows."""
    own = torch.eye(len(student), dtype=torch.bool, device=student.device)
    log_s = (student @ student.T / temperature).masked_fill(own, -1e4).log_softmax(1)
    log_t = (target @ target.T / temperature).masked_fill(own, -1e4).log_softmax(1)
    return F.kl_div(log_s, log_t, log_target=True, reduction="batchmean")


def validate(tower: Tower, trunk: Trunk, cache: Path, split: str = "val") -> dict[str, float]:
    """R@1 in % per style of the frozen tower, plain cosine."""
    device = tower.positions.device
    tower.eval()
    out = {}
    with torch.no_grad():
        for style, maps in emoji.cached_maps(split, cache).items():
            middle, last = (m.float().to(device) for m in maps[:2])
            out[style] = tower(middle, last, trunk.summary(last))
    return {s: round(emoji.recall(out[s], out["images"]), 1) for s in emoji.STYLES}


def distil(cache: Path, settings: Settings, device: str = "cpu") -> tuple[Tower, Space]:
    """Train the tower; resumes from ``distil.pt`` after an interruption.

    Returns:
        The averaged (EMA) tower and the space it was trained in.
    """
    views = Views.open(cache)
    n, n_views = len(views.teacher[0]), len(views.teacher)
    space = Space.fit(
        torch.from_numpy(np.array(views.teacher[0])).float(),
        SEMANTIC_DIM,
        settings.centring,
        settings.whitening,
    )
    layout = LayoutSpace.fit(np.array(views.middle[0]), LAYOUT_DIM, settings.layout_whitening)
    torch.manual_seed(settings.seed)
    trunk = folded_trunk(load_lite(0))
    tower = new_tower(views, trunk, settings.token_scale)
    start_heads(tower, trunk, views, space, layout)
    tower, trunk = tower.to(device), trunk.to(device)
    average = copy.deepcopy(tower).requires_grad_(False)
    decay = [p for p in tower.parameters() if p.ndim == 2]
    rest = [p for p in tower.parameters() if p.ndim != 2]
    groups = [{"params": decay, "weight_decay": settings.weight_decay}, {"params": rest}]
    optimiser = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=0.0, betas=(0.9, 0.98))
    steps = settings.epochs * (n // settings.batch)
    state = cache / "distil.pt"
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        if saved["settings"] == repr(settings) and saved["views"] == n_views:
            tower.load_state_dict(saved["tower"])
            average.load_state_dict(saved["average"])
            optimiser.load_state_dict(saved["optimiser"])
            first = saved["epoch"]
    step = first * (n // settings.batch)
    for epoch in range(first, settings.epochs):
        random = np.random.default_rng([settings.seed, epoch])
        order = random.permutation(n)
        total, started = 0.0, time.monotonic()
        batches = range(n // settings.batch)
        for b in tqdm(batches, desc=f"distil {epoch + 1}/{settings.epochs}", mininterval=10):
            index = np.sort(order[b * settings.batch : (b + 1) * settings.batch])
            view = random.integers(0, n_views, len(index))
            own = space(views.take("teacher", view, index))
            plain = space(views.take("teacher", np.zeros_like(view), index))
            target = F.normalize(own + settings.plain_share * plain, dim=1).to(device)
            rate = min(1.0, (step + 1) / 150) * 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimiser.param_groups:
                group["lr"] = settings.lr * max(rate, 0.01)
            middle = views.take("middle", view, index).to(device)
            last = views.take("last", view, index).to(device)
            target = torch.cat([target, layout(middle.cpu()).to(device)], dim=1)
            with torch.no_grad():
                summary = trunk.summary(last)
            tower.train()
            with torch.autocast(torch.device(device).type, torch.bfloat16):
                output = tower(middle, last, summary)
            loss = output.new_zeros(())
            for part in (slice(0, SEMANTIC_DIM), slice(SEMANTIC_DIM, None)):
                ours, theirs = output[:, part], target[:, part]  # unit norm each
                loss = loss + 4 * (1 - (ours * theirs).sum(1)).mean()
                loss = loss + settings.relation * relational(ours, theirs, settings.temperature)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
            optimiser.step()
            step += 1
            total += float(loss)
            keep = min(settings.ema, step / (step + 20))
            with torch.no_grad():
                for a, p in zip(average.parameters(), tower.parameters(), strict=True):
                    a.lerp_(p, 1 - keep)
        scores = validate(average, trunk, cache)
        tqdm.write(
            f"epoch {epoch + 1}: loss {total / len(batches):.4f}, val R@1 {scores}, "
            f"{time.monotonic() - started:.0f} s"
        )
        content = {
            "settings": repr(settings), "views": n_views, "epoch": epoch + 1,
            "tower": tower.state_dict(), "average": average.state_dict(),
            "optimiser": optimiser.state_dict(),
        }  # fmt: skip
        torch.save(content, state.with_suffix(".tmp"))
        state.with_suffix(".tmp").replace(state)
    return average.cpu(), space
