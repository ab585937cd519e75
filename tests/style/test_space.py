import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from torch import nn

from freestyle.errors import UserError
from freestyle.style import StyleSpace, fitting

torch.set_num_threads(1)


def blobs(count=40, dim=10, centres=4, seed=0, spread=0.1):
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(centres, dim))
    points = middles[:, None] + spread * rng.normal(size=(centres, count, dim))
    return torch.from_numpy(points.reshape(-1, dim)).float()


def by_rows(matrix):
    matrix = np.asarray(matrix)
    return matrix[np.lexsort(matrix.round(3).T)]


def toy():
    """Bases (1, 0) and (0, 2) in the codes' own coordinates, temperature 1."""
    space = StyleSpace(2, 2, None, 1.0, center=False)
    space.bases.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
    space.factor.fill_(1.0)
    return space


def test_projection_by_hand():
    space = toy()
    codes = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.0, -5.0]])
    e = math.e
    wanted = torch.tensor([[e / (e + 1), 1 / (e + 1)], [0.5, 0.5], [e / (e + 1), 1 / (e + 1)]])
    torch.testing.assert_close(space.weights(codes), wanted)
    torch.testing.assert_close(space.project(codes), wanted * torch.tensor([1.0, 2.0]))
    assert torch.equal(space(codes), space.project(codes))
    space.temperature = 0.5
    hot = math.exp(2.0)
    torch.testing.assert_close(
        space.weights(codes)[0, 0].item(), hot / (hot + 1), rtol=1e-6, atol=0
    )


def test_unseen_style_lies_between():
    space = toy()
    between = space.project(torch.tensor([[1.0, 0.5], [0.5, 1.0], [1.0, 1.0]]))
    assert (between > 0).all()
    torch.testing.assert_close(between[:, 0] + between[:, 1] / 2, torch.ones(3))  # on the segment
    assert between[0, 0] > between[2, 0] > between[1, 0]


def test_literal_form_is_kmeans_on_raw_codes():
    codes = blobs()
    space = StyleSpace.fit(codes, n_components=None, center=False, temperature=1.0, scale=False)
    assert torch.equal(space.embed(codes), codes)
    direct = KMeans(4, n_init=10, tol=0, max_iter=10_000, random_state=0).fit(codes.double())
    np.testing.assert_allclose(space.bases, direct.cluster_centers_, atol=1e-6)
    nearest = torch.cdist(codes, space.bases).argmin(1)
    means = torch.stack([codes[nearest == k].mean(0) for k in range(4)])
    torch.testing.assert_close(space.bases, means, atol=1e-5, rtol=0)  # centres stand still
    cosine = nn.functional.cosine_similarity(codes[:, None], space.bases[None], dim=2)
    torch.testing.assert_close(space.weights(codes), cosine.softmax(1))


def test_scale_changes_lengths_only():
    codes = blobs()
    plain = StyleSpace.fit(codes, n_components=None, center=False, temperature=1.0, scale=False)
    scaled = StyleSpace.fit(codes, n_components=None, center=False, temperature=1.0)
    torch.testing.assert_close(scaled.weights(codes), plain.weights(codes))
    assert abs(scaled.embed(codes).square().mean().item() - 1) < 1e-4


def test_temperature_one_bound():
    """Four bases in opposite corners: no weight passes e / (e + 3 / e) = 0.711."""
    bound = math.e / (math.e + 3 / math.e)
    assert round(bound, 2) == 0.71
    space = StyleSpace(1, 4, None, 1.0, center=False)
    space.factor.fill_(1.0)
    space.bases.copy_(torch.tensor([[1.0], [-1.0], [-1.0], [-1.0]]))
    assert abs(space.weights(torch.tensor([[2.0]])).max().item() - bound) < 1e-6
    codes = blobs(spread=0.01)
    fitted = StyleSpace.fit(codes, temperature=1.0)
    assert fitted.weights(codes).max() <= bound
    fitted.temperature = 0.1
    assert fitted.weights(codes).max(1).values.min() > 0.95


@pytest.mark.parametrize("whiten", [False, 0.5, True])
def test_reduction_against_scikit_learn(whiten):
    codes = blobs(spread=0.3)
    space = StyleSpace.fit(codes, n_components=5, whiten=whiten)
    model = PCA(5).fit(codes.double())
    wanted = model.transform(codes.double())
    wanted /= wanted.std(0) ** float(whiten)
    wanted /= np.sqrt((wanted**2).mean())
    found = space.embed(codes).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-3)
    assert (space.axes.gather(1, space.axes.abs().argmax(1, keepdim=True)) > 0).all()
    direct = KMeans(4, n_init=10, tol=0, random_state=0).fit(found.astype(np.float64))
    np.testing.assert_allclose(by_rows(space.bases), by_rows(direct.cluster_centers_), atol=1e-3)


def test_uncentred_reduction_keeps_cosines():
    codes = blobs()
    space = StyleSpace.fit(codes, n_components=10, center=False)
    found, raw = space.embed(codes), codes
    for a, b in ((found[:5], raw[:5]),):
        torch.testing.assert_close(
            torch.cosine_similarity(a[:, None], a[None], dim=2),
            torch.cosine_similarity(b[:, None], b[None], dim=2),
            atol=1e-4,
            rtol=0,
        )
    torch.testing.assert_close(space.mean, codes.mean(0))  # kept though not subtracted


def test_clusters_are_found_without_labels():
    codes = blobs()
    best = StyleSpace.fit(codes).weights(codes).argmax(1).view(4, 40)
    assert (best == best[:, :1]).all()
    assert len(best[:, 0].unique()) == 4


def test_minibatch_and_incremental_agree_with_the_exact_way(monkeypatch):
    codes = blobs(count=200)
    exact = StyleSpace.fit(codes, n_components=6)
    monkeypatch.setattr(fitting, "LARGE", 100)
    monkeypatch.setattr(fitting, "PIECE", 500)
    large = StyleSpace.fit(codes.numpy(), n_components=6, minibatch_above=100)
    same = exact.weights(codes) @ large.weights(codes).t()
    assert (same.diagonal() > 0).all()
    a = torch.cdist(exact.project(codes), exact.project(codes))
    b = torch.cdist(large.project(codes), large.project(codes))
    assert (a - b).abs().max() < 0.05 * a.max()
    literal = StyleSpace.fit(codes, n_components=6, center=False)
    assert literal.weights(codes).isfinite().all()


def test_deterministic_by_seed():
    codes = blobs(spread=1.0)
    first, second, other = (StyleSpace.fit(codes, 5, seed=seed) for seed in (1, 1, 2))
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key])
    assert not torch.equal(first.bases, other.bases)


def test_few_codes_leave_the_shape_alone():
    codes = blobs(count=2)  # 8 codes span 7 centred dimensions
    space = StyleSpace.fit(codes, n_components=9)
    assert space.dim == 9
    assert space.embed(codes).shape == (8, 9)
    assert torch.equal(space.embed(codes)[:, 7:], torch.zeros(8, 2))
    assert StyleSpace.fit(codes, n_components=64).n_components == 10  # at most code_dim


def test_zero_and_broken_codes_have_defined_values():
    space = StyleSpace.fit(blobs())
    codes = torch.stack([space.mean, torch.full((10,), math.nan), torch.full((10,), math.inf)])
    torch.testing.assert_close(space.weights(codes)[1:], torch.full((2, 4), 0.25))
    torch.testing.assert_close(space.project(codes)[1], space.bases.mean(0))
    assert torch.equal(space.embed(codes)[1:], torch.zeros(2, space.dim))
    assert space.weights(codes).isfinite().all()
    raw = StyleSpace.fit(blobs(), n_components=None, center=False)
    torch.testing.assert_close(raw.weights(torch.zeros(1, 10)), torch.full((1, 4), 0.25))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_codes_and_autocast(dtype):
    codes = blobs()
    space = StyleSpace.fit(codes)
    with torch.autocast("cpu", dtype=dtype):
        found = space.project(codes.to(dtype))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, space.project(codes.to(dtype).float()))


def test_nothing_trains():
    space = StyleSpace.fit(blobs())
    assert list(space.parameters()) == []
    assert not space.project(blobs()).requires_grad


def test_save_and_load_bitwise(tmp_path):
    space = StyleSpace.fit(blobs(), reader_tag="vgg", temperature=0.2, whiten=0.5, seed=3)
    path = tmp_path / "deep" / "space.safetensors"
    space.save(path)
    first = path.read_bytes()
    loaded = StyleSpace.load(path)
    assert loaded.config == space.config
    for key, value in space.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[key])
    loaded.save(path)
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing temporary left
    assert loaded.is_fitted


@pytest.mark.parametrize("n_components", [4, None])
def test_state_dict_inside_a_bigger_module(n_components):
    space = StyleSpace.fit(blobs(), n_components=n_components)
    empty = StyleSpace(**space.config)
    assert not empty.is_fitted
    nn.ModuleDict({"space": empty}).load_state_dict(nn.ModuleDict({"space": space}).state_dict())
    assert torch.equal(empty.project(blobs()), space.project(blobs()))


def test_load_user_errors(tmp_path):
    path = tmp_path / "space.safetensors"
    with pytest.raises(UserError, match="does not exist"):
        StyleSpace.load(path)
    path.write_bytes(b"broken")
    with pytest.raises(UserError, match="damaged"):
        StyleSpace.load(path)
    StyleSpace.fit(blobs()).save(path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="damaged"):
        StyleSpace.load(path)
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="not a style space"):
        StyleSpace.load(path)
    fitting.write_space(path, {"mean": torch.zeros(2)}, {"format": "freestyle-style-space-1"})
    with pytest.raises(UserError, match="damaged"):
        StyleSpace.load(path)
    with pytest.raises(UserError, match="cannot write"):
        StyleSpace.fit(blobs()).save(path / "below-a-file")


def test_reader_tag():
    space = StyleSpace.fit(blobs(), reader_tag="one")
    space.check_reader("one")
    with pytest.raises(UserError, match=r"'one'.*'two'"):
        space.check_reader("two")


def broken(value):
    codes = blobs()
    codes[7, 3] = value
    return codes


@pytest.mark.parametrize(
    ("codes", "options", "words"),
    [
        (blobs()[:3], {}, "too few"),
        (torch.ones(20, 5), {}, "only 1 different"),
        (broken(math.nan), {}, "code 7"),
        (broken(math.inf), {}, "code 7"),
        (torch.ones(20), {}, "table"),
        (blobs(), {"temperature": 0.0}, "temperature"),
        (blobs(), {"temperature": math.nan}, "temperature"),
        (blobs(), {"n_bases": 0}, "n_bases"),
        (blobs(), {"n_components": 0}, "n_components"),
        (blobs(), {"whiten": 2.0}, "whiten"),
    ],
)
def test_fit_user_errors(codes, options, words):
    with pytest.raises(UserError, match=words):
        StyleSpace.fit(codes, **options)
