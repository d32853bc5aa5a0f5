"""The type checker sees every module, and is overruled only with a reason."""

from __future__ import annotations

import re
import tomllib

IGNORED = re.compile(r"# type: ignore(?P<code>\[[\w-]+\])?(?P<reason> # \S.*)?")


def test_no_module_is_left_out_by_the_type_checker(repo_root):
    settings = tomllib.loads((repo_root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    assert settings["mypy"]["files"] == ["src"]
    assert settings["mypy"]["disallow_untyped_defs"]
    assert "overrides" not in settings["mypy"]
    assert "exclude" not in settings["mypy"]


def test_the_type_checker_is_overruled_by_code_and_with_a_reason(repo_root):
    found = [
        (f"{path.name}: {line.strip()}", match)
        for path in sorted((repo_root / "src").rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if (match := IGNORED.search(line))
    ]
    assert found
    assert not [line for line, match in found if not (match["code"] and match["reason"])]


def test_every_package_says_that_it_is_typed(repo_root):
    packages = [path.parent for path in (repo_root / "src").glob("*/__init__.py")]
    assert len(packages) == 5
    assert all((package / "py.typed").exists() for package in packages)
