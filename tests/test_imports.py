"""The package is light to import, and imports go one way."""

from __future__ import annotations

import ast
import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "freestyle"
RANKS = {
    "__init__": 0,
    "errors": 0,
    "config": 0,
    "values": 0,
    "files": 0,
    "locks": 0,
    "options": 0,
    "allocator": 0,
    "datasets": 1,
    "encoders": 2,
    "style": 2,
    "code_cache": 3,
    "frozen": 3,
    "framing": 3,
    "synthetic": 3,
    "calibration": 3,
    "prompts": 3,
    "query_map": 3,
    "tuning": 3,
    "encoding": 4,
    "model": 4,
    "pretrained": 4,
    "baselines": 4,
    "generation": 5,
    "transport": 4,
    "search": 6,
    "training": 5,
    "evaluation": 5,
    "demo": 6,
    "bench": 6,
    "__main__": 7,
    "cli": 7,
}
PROBE = """
import json, sys, time
start, cpu = time.perf_counter(), time.process_time()
{statement}
print(json.dumps([time.process_time() - cpu, time.perf_counter() - start, sorted(sys.modules)]))
"""
HEAVY = ("torch", "transformers", "lightning", "numpy", "PIL", "sklearn", "matplotlib")


def fresh(statement: str) -> tuple[float, float, set[str]]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(statement=statement)],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    cpu, wall, modules = json.loads(done.stdout.splitlines()[-1])
    return cpu, wall, set(modules)


def test_import_is_light():
    runs = [fresh("import freestyle") for _ in range(3)]
    assert statistics.median(cpu for cpu, _, _ in runs) < 0.2
    assert not runs[0][2] & set(HEAVY)


def test_help_is_light():
    statement = "from freestyle.cli import main; assert main(['--help']) == 0"
    cpu, _, modules = fresh(statement)
    assert cpu < 0.2 and not modules & set(HEAVY)


def test_public_names_load_on_use():
    import freestyle

    for name in freestyle.__all__:
        assert getattr(freestyle, name).__module__.startswith("freestyle.")
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = freestyle.nothing_here


def imported(path: Path) -> set[str]:
    """First part below ``freestyle`` of everything a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            if node.module == "freestyle":
                found |= {a.name if a.name in RANKS else "__init__" for a in node.names}
            elif node.module.startswith("freestyle."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
            found |= {n.split(".")[1] for n in names if n.startswith("freestyle.")}
    return found


def owner(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("part", RANKS)
def test_imports_go_one_way(part):
    if part == "__init__":
        return  # the public names, all loaded on use
    files = [p for p in PACKAGE.rglob("*.py") if owner(p) == part]
    upward = [
        f"{path.relative_to(PACKAGE)} imports {other}"
        for path in files
        for other in imported(path)
        if RANKS[other] > RANKS[part]
    ]
    assert not upward


def test_every_part_has_a_rank():
    assert {owner(path) for path in PACKAGE.rglob("*.py")} <= set(RANKS)


def test_readers_and_encoders_stand_alone():
    """Data sets know nothing of models; encoders and style readers not of each other."""
    for part, others in (("datasets", {"errors", "datasets"}), ("style", {"encoders"})):
        for path in (PACKAGE / part).rglob("*.py"):
            if part == "datasets":
                assert imported(path) <= {*others, "files", "config"}
            else:
                assert not imported(path) & others
    for path in (PACKAGE / "encoders").rglob("*.py"):
        assert "style" not in imported(path)
