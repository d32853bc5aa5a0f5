"""A name → object table that refuses duplicates and unknown names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from trainrig.errors import nearest

T = TypeVar("T")


class Registry(Mapping[str, Any]):
    """Objects by name; a new entry is one ``@REGISTRY.register("name")`` line.

    Args:
        kind: what the entries are, for messages (``"optimizer"``).

    Raises:
        ValueError: a name registered twice.
        KeyError: an unknown name; the text gives the nearest one and all that are known.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Any] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that stores its object under ``name`` and returns it unchanged."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered already; choose another name")

        def store(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return store

    def __getitem__(self, name: str) -> Any:
        if name not in self._entries:
            hint = nearest(name, self._entries)
            known = ", ".join(sorted(self._entries))
            raise KeyError(f"unknown {self.kind} {name!r}{hint} (known: {known})")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries
