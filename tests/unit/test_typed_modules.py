"""The type checker sees the core and every module that the reference pages document."""

from __future__ import annotations

import re
import tomllib


def test_no_public_module_is_left_out_by_the_type_checker(repo_root):
    settings = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))
    left_out = {
        name
        for override in settings["tool"]["mypy"]["overrides"]
        if override.get("ignore_errors")
        for name in override["module"]
    }
    pages = (repo_root / "docs/reference").glob("*.md")
    public = {
        name for page in pages for name in re.findall(r"^::: (\S+)", page.read_text(), re.MULTILINE)
    }
    assert len(public) > 50
    assert not left_out & public
    assert not [name for name in left_out if name.startswith("trainrig")]
    for name in left_out:
        path = repo_root / "src" / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), name


def test_every_package_says_that_it_is_typed(repo_root):
    packages = [path.parent for path in (repo_root / "src").glob("*/__init__.py")]
    assert len(packages) == 5
    assert all((package / "py.typed").exists() for package in packages)
