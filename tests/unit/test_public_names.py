"""Each package names its public surface: names that resolve, are documented, and cost no torch."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("trainrig", "pytorch_port", "optimizer_quality", "deepobs", "ptycho_torch")
DOCUMENTED = {
    name
    for page in (ROOT / "docs" / "reference").glob("*.md")
    for name in re.findall(r"^::: (\S+)", page.read_text(encoding="utf-8"), re.M)
}


def places(name, value):
    """Return the documented modules that define a public object, or that the object is kept in."""
    defined = inspect.isclass(value) or inspect.isfunction(value)
    modules = {value.__module__} if defined else DOCUMENTED
    return [m for m in modules & DOCUMENTED if vars(importlib.import_module(m)).get(name) is value]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_public_names_resolve_and_are_in_the_reference(package):
    module = importlib.import_module(package)
    names = module.__all__
    assert 15 <= len(names) <= 30
    assert len(set(names)) == len(names)
    missing = [name for name in names if not places(name, getattr(module, name))]
    assert missing == []
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        module.nonsense  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package):
    code = f"import sys, {package}; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
