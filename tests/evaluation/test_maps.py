import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from freestyle.cli import command
from freestyle.evaluation import likeness, map_command, maps
from freestyle.evaluation.drawing import save_png

STYLES = ("sketch", "art", "colour")


def texts(figure):
    """Everything a figure says, legends too."""
    from matplotlib.text import Text

    return {t.get_text() for t in figure.findobj(Text) if t.get_text()}


def size(figure):
    return tuple(figure.get_size_inches())


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def ranks(random):
    drawn = {style: random.integers(1, 301, 40) for style in STYLES}
    return {"zero-shot": drawn, "freestyle": {s: (r + 3) // 4 for s, r in drawn.items()}}


# -- numbers ---------------------------------------------------------------------------------


def test_tsne_is_seeded_and_keeps_clusters_apart(random):
    centres = 5 * np.eye(3, 8)
    points = np.concatenate([c + 0.1 * random.standard_normal((12, 8)) for c in centres])
    first, again = likeness.tsne(points, 3), likeness.tsne(points, 3)
    assert first.shape == (36, 2) and np.array_equal(first, again)
    assert likeness.neighbour_share(points, np.repeat([0, 1, 2], 12), k=5) == 1.0
    apart = np.linalg.norm(first[:12].mean(axis=0) - first[12:24].mean(axis=0))
    assert apart > 3 * first[:12].std(axis=0).max()


def test_neighbour_share_leaves_out_the_point_itself():
    points = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1]], dtype=float)
    share = likeness.neighbour_share
    assert share(points, np.array(["a", "a", "b", "b"]), k=1) == 1.0
    assert share(points, np.array(["a", "b", "a", "b"]), k=1) == 0.0
    assert share(points, np.array(["a", "a", "b", "b"])) == pytest.approx(1 / 3)  # all 3 others


def test_similarity_from_sums_equals_the_pairs():
    torch.manual_seed(0)
    codes = {"sketch": torch.randn(5, 4), "art": torch.randn(300, 4), "one": torch.randn(1, 4)}
    table = likeness.similarity_of(lambda x: x, codes, SimpleNamespace(device="cpu"))
    unit = torch.nn.functional.normalize(codes["art"].double(), dim=1)
    cosines = (unit @ unit.T).numpy()
    within = cosines[~np.eye(300, dtype=bool)].mean()
    means = [codes[s].double().mean(dim=0) for s in ("sketch", "art")]
    between = torch.nn.functional.cosine_similarity(*means, dim=0)
    np.testing.assert_allclose(table[1, 1], within, atol=1e-9)
    np.testing.assert_allclose([table[0, 1], table[1, 0]], [between] * 2, rtol=1e-9)
    assert table[2, 2] == 1.0


def test_drawn_queries_take_turns_among_styles():
    before = {"a": np.array([2, 3, 1, 1]), "b": np.array([5, 1, 4, 1])}
    after = {"a": np.array([1, 1, 1, 2]), "b": np.array([1, 1, 9, 1])}
    drawn = likeness.draw_queries(before, after, 3, seed=1)
    assert drawn == likeness.draw_queries(before, after, 3, seed=1)
    assert {(s, row) for s, row, won in drawn if won} == {("a", 0), ("a", 1), ("b", 0)}
    assert {s for s, _, won in drawn[:2]} == {"a", "b"}
    assert drawn[3:] == [("a", 3, False)]
    assert not likeness.draw_queries(before, before, 3, seed=0)


def test_gallery_sizes_end_at_the_whole():
    assert maps.gallery_sizes(482).tolist() == [50, 100, 200, 400, 482]
    assert maps.gallery_sizes(100).tolist() == [50, 100]
    assert maps.gallery_sizes(20).tolist() == [5, 10, 20]
    assert maps.gallery_sizes(1).tolist() == [1]


# -- figures ---------------------------------------------------------------------------------


def test_embedding_map_has_a_row_per_colouring(random, tmp_path):
    kinds = np.repeat(["photo", *STYLES], 6)
    groups = np.tile(["animals", "food", "other"], 8)
    places = {name: random.standard_normal((24, 2)) for name in ("before", "after")}
    notes = {name: ["near style", "near group"] for name in places}
    draw = lambda: maps.draw_embedding_map(
        places, kinds, groups=groups, unseen=["colour"], notes=notes, title="$Both$"
    )
    figure = draw()
    assert len(figure.axes) == 4
    wanted = {"by style", "by group", "photo", "sketch", "colour (unseen)", "food", "near group"}
    assert wanted | {"$Both$", "before", "after"} <= texts(figure)
    hollow = [c for c in figure.axes[0].collections if c.get_label() == "colour (unseen)"]
    assert len(hollow) == 1 and not len(hollow[0].get_facecolor())
    assert len(figure.axes[2].collections) == 3
    paths = [save_png(f, tmp_path / f"{i}.png") for i, f in enumerate((figure, draw()))]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with Image.open(paths[0]) as image:
        assert image.size == tuple(round(150 * side) for side in size(figure))
    single = maps.draw_embedding_map(places, kinds)
    assert len(single.axes) == 2 and size(single)[1] < size(figure)[1]


def test_many_groups_are_joined(random):
    groups = np.concatenate([np.repeat([f"g{i}" for i in range(9)], 3), ["tiny"]])
    places = {"before": random.standard_normal((28, 2))}
    figure = maps.draw_embedding_map(places, np.full(28, "photo"), groups=groups)
    named = {c.get_label() for c in figure.axes[1].collections}
    assert len(named) == 8 and "other" in named and "tiny" not in named


def test_style_space_marks_bases_and_unseen_styles(random):
    places = {style: random.standard_normal((7, 2)) for style in STYLES}
    weights = np.array([[0.9, 0.1], [0.25, 0.75], [0.5, 0.5]])
    figure = maps.draw_style_space(
        places, np.eye(2), weights, [0.4, 0.25], unseen=["colour"], title="Space"
    )
    left, right = figure.axes
    labels = [t.get_text() for t in left.get_legend().get_texts()]
    assert labels == ["sketch", "art", "colour (unseen)", "base"]
    assert {t.get_text() for t in left.texts} == {"1", "2"}
    assert "40% of variance" in left.get_xlabel() and "25%" in left.get_ylabel()
    assert [t.get_text() for t in right.texts] == ["0.90", "0.10", "0.25", "0.75", "0.50", "0.50"]
    assert [t.get_text() for t in right.get_yticklabels()] == labels[:3]


def test_similarity_has_one_annotated_panel_per_thing():
    table = np.array([[0.9, -0.2, 0.1], [-0.2, 0.8, 0.3], [0.1, 0.3, 0.7]])
    figure = maps.draw_similarity({"tokens": table, "shift": table}, STYLES, unseen=["colour"])
    assert len(figure.axes) == 2
    assert {"tokens", "shift", "\N{MINUS SIGN}0.20", "0.90", "colour (unseen)"} <= texts(figure)
    one = maps.draw_similarity({"tokens": table}, STYLES)
    assert size(one)[0] < size(figure)[0]


def test_recall_curves_show_every_k(ranks, tmp_path):
    figure = maps.draw_recall_curves(ranks, 300, unseen=["colour"], title="Recall")
    assert len(figure.axes) == 3 and figure.axes[0].get_xscale() == "log"
    before, after = figure.axes[0].lines
    assert before.get_xdata().tolist() == list(range(1, 51))
    expected = [100 * (ranks["freestyle"]["sketch"] <= k).mean() for k in (1, 50)]
    np.testing.assert_allclose(after.get_ydata()[[0, -1]], expected)
    assert before.get_linestyle() == "--" and after.get_linestyle() == "-"
    assert {"zero-shot", "colour (unseen)", "Recall"} <= texts(figure)
    high = max(line.get_ydata().max() for axes in figure.axes for line in axes.lines)
    assert all(axes.get_ylim()[1] >= high for axes in figure.axes)
    again = maps.draw_recall_curves(ranks, 300, unseen=["colour"], title="Recall")
    paths = [save_png(f, tmp_path / f"{i}.png") for i, f in enumerate((figure, again))]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_gallery_curves_fall_to_the_whole_gallery(ranks):
    figure = maps.draw_gallery_sizes(ranks, 300)
    for axes, style in zip(figure.axes, STYLES, strict=True):
        assert [t.get_text() for t in axes.get_xticklabels()] == ["50", "100", "200", "300"]
        for line, method in zip(axes.lines, ranks, strict=True):
            assert (np.diff(line.get_ydata()) <= 1e-9).all()
            whole = 100 * (ranks[method][style] == 1).mean()
            assert line.get_ydata()[-1] == pytest.approx(whole)


def test_more_than_five_styles_take_another_row(ranks):
    many = {m: {f"s{i}": by["sketch"] for i in range(7)} for m, by in ranks.items()}
    figure = maps.draw_gallery_sizes(many, 300)
    assert len(figure.axes) == 7 and size(figure)[1] > 6


# -- the command -----------------------------------------------------------------------------


@pytest.fixture
def trained(make_model, tmp_path):
    def make(method="freestyle", **settings):
        model = make_model(method, **settings)
        model.config = dataclasses.replace(model.config, styles=("sketch", "art"))
        return str(model.save_pretrained(tmp_path / f"model-{method}"))

    return make


def test_command_draws_everything(trained, data, tmp_path, capsys):
    concepts = [{"stem": f"{i:02d}", "group": "ab"[i % 2]} for i in range(15)]
    (data / "concepts.json").write_text(json.dumps(concepts))
    model, out = trained(query_map="styled"), tmp_path / "out"
    args = ["--model", model, "--data", str(data), "--out", str(out)]
    command("figures")(args)
    told = capsys.readouterr().out
    left_out = {"wins_and_losses.png"} if "wins_and_losses.png is left out" in told else set()
    assert {path.name for path in out.iterdir()} == set(map_command.FIGURES) - left_out
    assert "same group" in told and "scale and shift" in told and "prompt tokens" in told


def test_model_without_style_leaves_out_what_needs_one(trained, data, tmp_path, capsys):
    model = trained("zero-shot")
    config = tmp_path / "experiment.yaml"
    config.write_text(f"data: {{root: {data}, name: tiny}}\n")
    out = tmp_path / "out"
    args = ["--model", model, "--config", str(config), "--styles", "art,text", "--out", str(out)]
    map_command.main(args)
    found = {path.name for path in out.iterdir()}
    assert found == {"embedding_map.png", "recall_curves.png", "gallery_size.png"}
    told = capsys.readouterr().out
    assert "style_space.png is left out: the model reads no style" in told
    assert "neither a styled query map nor prompts" in told
    assert "both find the same queries first" in told
    assert "group" not in told


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--styles", "painting"], ["--styles", "painting", "mosaic"]),
        (["--styles", "sketch+text"], ["--styles", "joint", "mosaic"]),
        (["--styles", "text"], ["--styles text", "picture style"]),
        (["--seed", "-1"], ["--seed is -1", "use 0"]),
        (["--seed", "x"], ["--seed", "--help"]),
        (["--split", "tset"], ["tset", "choose from"]),
        (["--config", "c.yaml"], ["--config", "--data", "--help"]),
        (["--model", "/nowhere/model"], ["/nowhere/model"]),
    ],
)
def test_bad_options_are_refused(options, named, data, refusal):
    message = refusal(map_command.main, ["--model", "/nowhere", "--data", str(data), *options])
    assert all(word in message for word in named), message


def test_places_and_files_that_cannot_be_used(data, tmp_path, refusal):
    taken = tmp_path / "file"
    taken.write_text("")
    start = ["--model", "/nowhere"]
    message = refusal(map_command.main, [*start, "--data", str(data), "--out", str(taken)])
    assert "--out" in message and "another folder" in message
    assert "--data" in refusal(map_command.main, start)
    (tmp_path / "c.yaml").write_text("model: {}\n")
    assert "--data" in refusal(map_command.main, [*start, "--config", str(tmp_path / "c.yaml")])
    for text in ('{"stem": 1}', "nothing", '[{"stem": "a"}]'):
        taken.write_text(text)
        assert "mend it" in refusal(map_command.read_groups, taken)
    assert map_command.read_groups(tmp_path / "none.json") == {}
