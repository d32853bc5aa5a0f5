"""docs/architecture.md shows every module and the layers that the import contract has."""

from __future__ import annotations

import importlib.util
import re
import tomllib

import pytest


@pytest.fixture(scope="module")
def page(repo_root):
    return (repo_root / "docs" / "architecture.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hooks(repo_root):
    spec = importlib.util.spec_from_file_location("docs_hooks", repo_root / "docs" / "_hooks.py")
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


def test_the_site_lists_every_module_with_its_first_line(hooks, repo_root):
    rows = hooks.module_list().splitlines()
    assert "| `trainrig/loop.py` | The training loop" in "\n".join(rows)
    present = [p for p in (repo_root / "src").glob("*/**/*.py")]
    assert sum(row.startswith("| `") for row in rows) == len(present)
    assert all(len(row.split("|")[2]) > 5 for row in rows if row.startswith("| `"))


def test_layers_are_those_of_the_contract(page, repo_root):
    settings = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = {c["name"]: c for c in settings["tool"]["importlinter"]["contracts"]}
    layers = contracts["The core is layered"]["layers"]
    assert "\n".join(f"    {layer}" for layer in layers) in page


def test_the_drawing_has_the_imports_of_the_code(hooks):
    edges, rows = hooks.imports(), hooks.layers()
    place = {name: number for number, row in enumerate(rows) for name in row}
    assert {"loop", "runs", "report"} <= edges["pytorch_port"]
    assert edges["checkpoint"] >= {"errors", "files"}
    assert all(place[name] < place[other] for name, direct in edges.items() for other in direct)
    assert hooks.shortest({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == {
        "a": {"b"},
        "b": {"c"},
        "c": set(),
    }
    drawing = hooks.dependency_drawing()
    assert drawing.count("<path") == sum(map(len, hooks.shortest(edges).values())) > 50
    assert all(f">{name}</text>" in drawing for name in place)


def test_the_index_names_every_page(repo_root):
    docs = repo_root / "docs"
    named = re.findall(r"\]\((\w+\.md)\)", (docs / "index.md").read_text(encoding="utf-8"))
    assert sorted(named) == sorted(p.name for p in docs.glob("*.md") if p.name != "index.md")
