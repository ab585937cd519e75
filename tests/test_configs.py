"""Every shipped config: its name, its fields, the classes it makes, and runs on tiny data."""

import inspect
import json
import sys
from pathlib import Path

import docstring_parser
import lightning as L
import pytest
import torch
import yaml

from freestyle import FreestyleRet
from freestyle.cli import evaluate
from freestyle.config import CalibrationConfig, LossConfig, PromptConfig, StyleConfig, TowerConfig
from freestyle.datasets.lists import in_validation
from freestyle.training.cli import FreestyleCLI, SaveConfigPlain, main
from freestyle.training.data import RetrievalData
from freestyle.training.module import RetrievalModule

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.yaml"))
NAMES = [path.stem for path in CONFIGS]
DATASETS = {
    "emoji": ("data/emoji", "dsr-emoji"),
    "dsr": ("data/dsr", "dsr"),
    "fscoco": ("data/fscoco", "fscoco"),
    "stamps": ("data/stamps/set", "dsr-stamps"),
    "imagenet_x": ("data/imagenet-x", "imagenet-x"),
}
ENCODERS = {
    "mini": ("freestyle-mini", "random:clip-tiny"),
    "clip_l14": ("openai/clip-vit-large-patch14", "random:clip-tiny"),
    "blip_large": ("Salesforce/blip-itm-large-coco", "random:blip-tiny"),
}
FULL_SIZE = {"dsr_clip_l14": "random:clip-vit-l-14", "dsr_blip_large": "random:blip-large"}
METHODS = {
    "": "freestyle",
    "freestyle": "freestyle",
    "triplet_paper": "freestyle",
    "query_adapter": "query-adapter",
    "vpt_shallow": "vpt-shallow",
    "vpt_deep": "vpt-deep",
    "lora": "lora",
    "prompt_tokens": "freestyle",
}
DOCUMENTED = {
    "trainer": L.Trainer,
    "model": RetrievalModule,
    "data": RetrievalData,
    "model.style": StyleConfig,
    "model.prompts": PromptConfig,
    "model.tower": TowerConfig,
    "model.loss": LossConfig,
    "model.calibration": CalibrationConfig,
}
QUICK = [
    "--data.num_workers=0",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


def read(name):
    return yaml.safe_load(config_path(name).read_text(encoding="utf-8"))


def config_path(name):
    return CONFIGS[NAMES.index(name)]


def parts(name):
    """Data set, encoder and method of a config's name."""
    dataset = next(d for d in DATASETS if name.startswith(f"{d}_"))
    rest = name.removeprefix(f"{dataset}_")
    encoder = next(e for e in ENCODERS if rest == e or rest.startswith(f"{e}_"))
    return dataset, encoder, rest.removeprefix(encoder).removeprefix("_")


def small_weights(name, encoder=None):
    """Options that replace what would be downloaded."""
    encoder = encoder or ENCODERS[parts(name)[1]][1]
    return [f"--model.encoder={encoder}", "--model.style.weights=random"]


class OnlyBuilt(FreestyleCLI):
    """The training command, stopped before its first stage."""

    def before_fit(self):
        pass

    def fit(self, **_):
        pass


def build(name, out, *options):
    arguments = ["fit", f"--config={config_path(name)}", f"--trainer.default_root_dir={out}"]
    return OnlyBuilt(
        RetrievalModule,
        RetrievalData,
        args=[*arguments, *options],
        save_config_callback=SaveConfigPlain,
        auto_configure_optimizers=False,
        seed_everything_default=0,
    )


def leaves(values, prefix=""):
    for key, value in values.items():
        place = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from leaves(value, f"{place}.")
        else:
            yield place, value


@pytest.fixture(autouse=True)
def bare_command_line(monkeypatch):
    """LightningCLI looks at ``sys.argv`` beside the arguments it is given."""
    monkeypatch.setattr(sys, "argv", ["train.py"])


def test_the_configs_that_are_promised_are_there():
    methods = ("freestyle", "query_adapter", "vpt_shallow", "vpt_deep", "triplet_paper")
    promised = {"dsr_clip_l14", "dsr_blip_large", "imagenet_x_clip_l14", "fscoco_clip_l14"}
    assert promised | {f"emoji_mini_{method}" for method in methods} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_says_data_set_encoder_and_method(name):
    dataset, encoder, method = parts(name)
    values = read(name)
    assert (values["data"]["root"], values["data"]["name"]) == DATASETS[dataset]
    assert values["model"]["encoder"] == ENCODERS[encoder][0]
    assert values["model"]["method"] == METHODS[method]
    assert values["trainer"]["default_root_dir"] == f"runs/{name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_config_begins_with_a_comment_on_what_it_is_for(name):
    lines = config_path(name).read_text(encoding="utf-8").splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    assert header
    assert all(len(line) <= 100 for line in lines)
    if parts(name)[0] not in ("emoji", "stamps"):  # those are measured here
        text = " ".join(header)
        assert "Published row" in text and "Estimates, not measured" in text


@pytest.mark.parametrize("name", NAMES)
def test_every_field_is_a_documented_argument(name):
    command = {"seed_everything", "checkpoint_every", "wandb", "wandb_project"}
    for place, _ in leaves(read(name)):
        owner, _, field = place.rpartition(".")
        if not owner:
            assert field in command, place
            continue
        owner = DOCUMENTED[owner]
        source = owner.__init__ if owner is L.Trainer else owner
        documented = {p.arg_name for p in docstring_parser.parse(inspect.getdoc(source)).params}
        assert field in documented, place
        assert field in inspect.signature(owner).parameters, place


@pytest.mark.parametrize("name", NAMES)
def test_every_config_makes_its_classes_with_the_values_it_gives(name, tmp_path):
    options = [*small_weights(name), "--trainer.accelerator=cpu"]
    cli = build(name, tmp_path, *options)
    replaced = {option.removeprefix("--").partition("=")[0] for option in options}
    for place, value in leaves(read(name)):
        if place not in replaced | {"trainer.default_root_dir"}:
            parsed = cli.config.fit.get(place)
            parsed = list(parsed) if isinstance(parsed, tuple) else parsed
            assert parsed == value, place
    values, model = read(name), cli.model.model
    assert model.config.method == values["model"]["method"]
    assert cli.trainer.max_epochs == values["trainer"]["max_epochs"]
    assert cli.trainer.precision == values["trainer"]["precision"]
    assert cli.datamodule.batch_size == values["data"]["batch_size"]
    assert cli.datamodule.seed == values["seed_everything"]
    assert cli.model.loss.name == values["model"]["loss"]["name"]
    assert sum(p.numel() for p in model.trained_parameters().values()) > 0
    pixels = torch.rand(2, 3, model.encoder.image_size, model.encoder.image_size)
    with torch.no_grad():
        assert model.query_from(*model.prepare(pixels)).shape == (2, model.encoder.embed_dim)


def test_the_literal_form_of_the_paper_is_what_it_says(tmp_path):
    name = "emoji_mini_triplet_paper"
    cli = build(name, tmp_path, *small_weights(name))
    style, prompts = cli.model.model.config.style, cli.model.model.config.prompts
    assert (style.temperature, style.center, style.n_components) == (1.0, False, None)
    assert (style.power, style.normalise, style.n_bases) == (1.0, False, 4)
    assert (prompts.shallow, prompts.deep, prompts.n_tokens) == ("style", "gram", 4)
    assert (cli.model.loss.name, cli.model.loss.margin) == ("triplet", 1.0)
    assert cli.model.learning_rate == 1e-5
    assert (cli.datamodule.batch_size, cli.trainer.max_epochs) == (24, 20)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("emoji")])
def test_controls_differ_from_the_paper_s_tokens_in_the_method_only(name):
    if name.endswith("triplet_paper"):
        return
    demo, values = read("emoji_mini_prompt_tokens"), read(name)
    for part in ("loss", "weight_decay", "warmup", "encoder"):
        assert values["model"][part] == demo["model"][part], part
    free = {"default_root_dir"}
    if name.endswith(("query_adapter", "freestyle")):  # cheap: trained to their own best length
        free |= {"max_epochs", "batch_size"}
    if name.endswith("freestyle"):  # synthetic styles are a part of the method
        free |= {"synthetic"}
    for section in ("data", "trainer"):
        own, shared = values[section], demo[section]
        assert {k: v for k, v in own.items() if k not in free} == {
            k: v for k, v in shared.items() if k not in free
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size_architectures_take_the_prompts(name, tmp_path):
    cli = build(name, tmp_path, *small_weights(name, FULL_SIZE[name]), "--trainer.accelerator=cpu")
    model = cli.model.model
    assert (model.encoder.width, model.encoder.depth) == (1024, 24)
    pixels = torch.rand(1, 3, model.encoder.image_size, model.encoder.image_size)
    with torch.no_grad():
        embedding = model.query_from(*model.prepare(pixels))
    assert embedding.norm(dim=1).tolist() == pytest.approx([1.0])


# -- runs on tiny folders in the layouts of the real data sets ------------------------------


def stems(folder, training, validation):
    """Record ids of which the hash sends so many to training and so many to validation."""
    found = {False: [], True: []}
    number = 0
    while len(found[False]) < training or len(found[True]) < validation:
        number += 1
        found[in_validation(f"{folder}/{number:06d}")].append(f"{folder}/{number:06d}")
    return found[False][:training], found[True][:validation]


def save(picture, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def caption(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_list(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries), encoding="utf-8")


@pytest.fixture
def dsr(tmp_path, make_picture):
    """Twelve records, nested ids, no val.json: six train, two carved for validation, four test."""
    root = tmp_path / "dsr"
    training, validation = stems("a", 6, 2)
    lists = {"train": training + validation, "test": [f"b/{number:06d}" for number in range(4)]}
    seed = 0
    for split, names in lists.items():
        for name in names:
            seed += 1
            for style in ("images", "sketch", "art", "mosaic"):
                save(make_picture(seed, style), root / style / f"{name}.jpg")
            caption(root / "text" / f"{name}.txt", f"caption {seed}\nsecond line")
        entries = [{"image": f"{name}.jpg", "caption": f"{name}.txt"} for name in names]
        write_list(root / f"{split}.json", entries)
    return root


@pytest.fixture
def fscoco(tmp_path, make_picture):
    """One user's scenes: five train, two carved for validation, three held out."""
    root = tmp_path / "fscoco"
    training, validation = stems("1", 5, 2)
    test = [f"1/{900000 + number}" for number in range(3)]
    for seed, name in enumerate(training + validation + test):
        save(make_picture(seed), root / "images" / f"{name}.jpg")
        save(make_picture(seed, "sketch"), root / "raster_sketches" / f"{name}.jpg")
        caption(root / "text" / f"{name}.txt", f"scene {seed}")
    (root / "val_normal.txt").write_text("\n".join(name.partition("/")[2] for name in test))
    return root


@pytest.fixture
def imagenet_x(tmp_path, make_picture):
    """Two classes: sketch and art with lists of their own, mosaic by photo."""
    root = tmp_path / "imagenet-x"
    lists = {(style, split): [] for style in ("images", "sketch", "art") for split in SPLITS}
    seed = 0
    for folder, classname in (("n01", "tench"), ("n02", "hen")):
        training, validation = stems(folder, 3, 2)
        chosen = {"train": training + validation, "test": [f"{folder}/t{n}" for n in range(2)]}
        for split, names in chosen.items():
            for name in names:
                seed += 1
                save(make_picture(seed, "mosaic"), root / "mosaic" / f"{name}.png")
                caption(root / "text" / f"{name}.txt", f"a {classname}")
                for style in ("images", "sketch", "art"):
                    entry = {"image": f"{name}.jpg", "classname": classname}
                    save(make_picture(seed, style), root / style / entry["image"])
                    lists[style, split].append(entry)
    for (style, split), entries in lists.items():
        write_list(root / style / f"{split}.json", entries)
    return root


SPLITS = ("train", "test")


def fit(name, root, out, *options):
    arguments = ["fit", f"--config={config_path(name)}", f"--data.root={root}"]
    arguments += [f"--trainer.default_root_dir={out}", f"--model.cache_dir={out}/cache"]
    return main([*arguments, *small_weights(name), *QUICK, *options])


def report_of(monkeypatch, name, root, out, *options):
    """The report that ``eval.py`` writes for a trained model."""
    file = out / "report.json"
    given = [f"--config={config_path(name)}", f"--data={root}", f"--model={out / 'model'}"]
    given += [f"--json={file}", "--device=cpu", *options]
    monkeypatch.setattr(sys, "argv", ["eval.py", *given])
    assert evaluate() == 0
    return json.loads(file.read_text())


def test_dsr_from_config_to_model_to_report(dsr, tmp_path, monkeypatch):
    out = tmp_path / "run"
    cli = fit("dsr_clip_l14", dsr, out, "--trainer.max_epochs=1", "--data.batch_size=6")
    assert cli.trainer.global_step == 3  # 18 queries
    model = FreestyleRet.from_pretrained(out / "model")
    assert model.config.styles == ("sketch", "art", "mosaic")
    assert model.config.style.resolution == 112 and model.space.is_fitted
    styles = "sketch,art,mosaic,text,sketch+text"
    report = report_of(monkeypatch, "dsr_clip_l14", dsr, out, f"--styles={styles}")
    assert (report["split"], report["gallery_size"]) == ("test", 4)
    assert report["encoder"] == "random:clip-tiny"
    rows = {(row["method"], row["style"]): row for row in report["rows"]}
    assert set(rows) == {(m, s) for m in ("zero-shot", "freestyle") for s in styles.split(",")}
    assert all(row["n"] == 4 and 0 <= row["R@1"] <= row["R@5"] <= 1 for row in rows.values())
    assert rows["freestyle", "text"]["MRR"] == rows["zero-shot", "text"]["MRR"]


def test_fscoco_trains_a_step_and_reports_on_the_held_out_list(fscoco, tmp_path, monkeypatch):
    out = tmp_path / "run"
    cli = fit("fscoco_clip_l14", fscoco, out, "--trainer.max_epochs=1")
    assert cli.trainer.global_step == 1
    assert len(cli.datamodule.train.gallery) == 5
    report = report_of(monkeypatch, "fscoco_clip_l14", fscoco, out, "--styles=sketch,text")
    assert report["gallery_size"] == 3
    assert {row["style"] for row in report["rows"]} == {"sketch", "text"}


def test_imagenet_x_trains_a_step_and_reports_by_class(imagenet_x, tmp_path, monkeypatch):
    out = tmp_path / "run"
    cli = fit("imagenet_x_clip_l14", imagenet_x, out, "--trainer.max_epochs=1")
    assert cli.trainer.global_step == 1
    assert cli.datamodule.train.relevance == "class"
    assert cli.model.model.reader.code_dim == 32 * 33 // 2
    styles = "sketch,art,mosaic"
    report = report_of(monkeypatch, "imagenet_x_clip_l14", imagenet_x, out, f"--styles={styles}")
    assert report["gallery_size"] == 4
    assert all("mAP@10" in row for row in report["rows"])
