"""The public names of a package, each imported where it is first used.

So ``import trainrig`` costs nothing, and ``--help`` does not load torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


def public(package: str, **modules: str) -> tuple[Callable[[str], Any], list[str]]:
    """Return ``__getattr__`` and ``__all__`` of a package.

    Args:
        package: its ``__name__``.
        **modules: a module of it, with ``__`` for a dot, and the names that are public of it.

    >>> get, names = public("trainrig", stats="mean_and_sd welch", tracking__tables="read_table")
    >>> names, get("welch").__module__
    (['mean_and_sd', 'read_table', 'welch'], 'trainrig.stats')
    """
    where = {
        name: f"{package}.{module.replace('__', '.')}"
        for module, names in modules.items()
        for name in names.split()
    }

    def get(name: str) -> Any:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(where[name]), name)

    return get, sorted(where)
