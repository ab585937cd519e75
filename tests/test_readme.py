"""What the README shows runs as shown."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_python_use_runs_as_printed(tmp_path, monkeypatch, capsys):
    from freestyle import FreestyleRet

    monkeypatch.chdir(ROOT)
    FreestyleRet.from_encoder("freestyle-mini").save_pretrained(tmp_path / "model")
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(code.replace("runs/demo/model", str(tmp_path / "model")), {})
    shown = re.findall(r"# (torch\.Size.*|tensor.*)$", code, re.M)
    assert capsys.readouterr().out.splitlines()[0] == shown[0]


def test_every_linked_file_exists():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("freestyle.evaluation.command", re.findall(r"eval\.py[^`]*?```", README, re.S)),
        ("freestyle.evaluation.command", re.findall(r"`(--[a-z-]+)", README)),
    ],
)
def test_every_documented_option_of_eval_exists(command, options):
    from freestyle.evaluation.command import parser

    known = set(parser()._option_string_actions)
    training = {"--config", "--ckpt_path", "--print_config", "--wandb", "--data.on_broken"}
    for text in options:
        for option in re.findall(r"--[a-z_.-]+", text):
            assert option in known | training, option
