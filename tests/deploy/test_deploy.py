"""What the images install is what is locked, and what the server's code imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FILES = ("Dockerfile", "Dockerfile.gpu")
PACKAGES = {  # module: distribution
    "PIL": "pillow",
    "multipart": "python-multipart",
    "prometheus_client": "prometheus-client",
    "pyarrow": "lancedb",
    "starlette": "fastapi",
    "pydantic": "fastapi",
    "anyio": "fastapi",
}
ELSEWHERE = {"qdrant_client"}  # a server of one's own; said in a sentence where it is missing


def requirements(name):
    found = {}
    for line in (DEPLOY / name).read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            found |= requirements(line[3:])
        elif line:
            package = re.match(r"[\w.-]+", line).group(0).lower()
            found[package.replace("_", "-")] = line
    return found


def locked(path):
    lines = path.read_text().splitlines()
    return {line.split("==")[0].lower().replace("_", "-") for line in lines if "==" in line}


@pytest.mark.parametrize("name", ["requirements-serve.txt", "requirements-gpu.txt"])
def test_every_package_is_locked_and_bounded_as_in_development(name):
    development = {
        re.match(r"[\w.-]+", line).group(0).lower(): line.split("#")[0].strip()
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if re.match(r"\w", line)
    }
    for package, line in requirements(name).items():
        assert package in locked(ROOT / "constraints.txt")
        if package in development and package != "sentencepiece":
            assert line == development[package]


def reached(*starts):
    """Packages that these modules of freestyle, and those they import at the top, import there."""
    todo, seen, outside = list(starts), set(), set()
    while todo:
        name = todo.pop()
        path = ROOT.joinpath(*name.split("."))
        path = (
            path.with_suffix(".py") if path.with_suffix(".py").is_file() else path / "__init__.py"
        )
        if name in seen or not path.is_file():
            continue
        seen.add(name)
        for node in ast.parse(path.read_text()).body:
            for part in [node] if isinstance(node, ast.Import | ast.ImportFrom) else []:
                names = [a.name for a in part.names] if isinstance(part, ast.Import) else []
                names = names or [part.module, *(f"{part.module}.{a.name}" for a in part.names)]
                todo += [n for n in names if n.startswith("freestyle.")]
                outside |= {n.split(".")[0] for n in names if not n.startswith("freestyle")}
    return outside


def test_what_the_server_imports_is_installed():
    import sys

    found = reached(
        "freestyle.search.serve_command",
        "freestyle.search.search_command",
        "freestyle.search.server.app",
        "freestyle.search.server.running",
        "freestyle.search.server.decode_worker",
        "freestyle.search.onnx_encoder",
        "freestyle.search.lance",
        "freestyle.search.exact",
    )
    found -= set(sys.stdlib_module_names) | ELSEWHERE
    installed = requirements("requirements-serve.txt")
    missing = {m for m in found if PACKAGES.get(m, m).replace("_", "-") not in installed}
    assert {"numpy", "PIL", "fastapi"} <= found and not missing


@pytest.mark.parametrize("name", FILES)
def test_images_are_small_and_run_as_nobody_in_particular(name):
    lines = (DEPLOY / name).read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert sum(line.startswith("FROM python:3.11-slim") for line in commands) == 2
    last = commands[-1 - commands[::-1].index("FROM python:3.11-slim") :]
    assert any(line.startswith("USER ") and line != "USER root" for line in last)
    assert any(line.startswith("HEALTHCHECK ") for line in last)
    assert any("-c constraints.txt" in line for line in commands)
    allowed = [
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if "!" in line
    ]
    for line in commands:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists()
                assert any(Path(source).match(pattern) for pattern in allowed), source


def test_compose_keeps_the_container_closed():
    serve = yaml.safe_load((DEPLOY / "compose.yml").read_text())["services"]["serve"]
    assert serve["read_only"] and serve["cap_drop"] == ["ALL"]
    assert serve["build"]["dockerfile"] == "deploy/Dockerfile"
    assert all(volume.endswith(":ro") for volume in serve["volumes"])
    assert all(port.startswith("127.0.0.1:") for port in serve["ports"])
