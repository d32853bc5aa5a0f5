"""What every parity proof is made of: a folder of recorded values, and a table of checks.

A proof must not stop half-way and must not drop anything. So a ``Recording`` remembers which of its
files and entries were read, and lists the others at the end; ``Report.attempt`` turns an error in
one case into a row. What cannot be judged is UNCHECKED, what is wrong is FAILED, and nothing is
passed over.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

#: A report's last line, and the line that says what it was computed with.
SUMMARY = re.compile(r"(\d+) passed, (\d+) failed, (\d+) unchecked")
PROCESSOR = re.compile(r"torch \S+, CPU capability (.+), threads: (\d+)")


def describe_processor() -> str:
    """Return torch's version, its vector instructions in use and its threads, as one line."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    threads = torch.get_num_threads()
    return f"torch {torch.__version__}, CPU capability {capability}, threads: {threads}"


@dataclass(frozen=True, slots=True)
class Row:
    """One checked quantity; ``deviation`` and ``bound`` share the quantity's unit."""

    case: str
    quantity: str
    deviation: float
    bound: float
    ok: bool
    detail: str = ""


@dataclass
class Report:
    """Collects checks and says at the end whether the port stands.

    Nothing checked counts as a failure: an empty directory must not look like a proof.
    """

    rows: list[Row] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def check(
        self, case: str, quantity: str, deviation: float, bound: float | None, detail: str = ""
    ) -> None:
        """Record a deviation that must not exceed ``bound``; NaN never passes.

        Without a bound nothing can be said but the deviation, and the quantity is UNCHECKED.
        """
        deviation = float(deviation)
        if bound is None:
            self.unchecked(case, f"{quantity}: no bound is recorded (deviation {deviation:.3g})")
            return
        ok = not math.isnan(deviation) and deviation <= bound
        self.rows.append(Row(case, quantity, deviation, float(bound), ok, detail))

    def equal(self, case: str, quantity: str, ok: bool, detail: str = "") -> None:
        """Record an exact comparison."""
        self.rows.append(Row(case, quantity, 0.0 if ok else math.inf, 0.0, bool(ok), detail))

    def unchecked(self, case: str, reason: str) -> None:
        """Record a file, key or setting that this checker cannot judge."""
        self.skipped.append((case, reason))

    @contextlib.contextmanager
    def attempt(self, case: str) -> Iterator[None]:
        """Judge one case whatever happens in it.

        An entry that its record lacks leaves the case UNCHECKED; any other error is a failed row,
        since our own code may be what is wrong.
        """
        try:
            yield
        except MissingEntryError as error:
            self.unchecked(case, str(error))
        except Exception as error:
            text = " ".join(str(error).split())
            self.equal(case, "runs", False, f"{type(error).__name__}: {text}")

    @property
    def failed(self) -> list[Row]:
        """The rows over their bound."""
        return [row for row in self.rows if not row.ok]

    @property
    def exit_code(self) -> int:
        """0 only if something was checked and nothing failed."""
        return 0 if self.rows and not self.failed else 1

    def summary(self) -> str:
        """The last line: ``N passed, N failed, N unchecked``."""
        passed = len(self.rows) - len(self.failed)
        return f"{passed} passed, {len(self.failed)} failed, {len(self.skipped)} unchecked"

    def table(self) -> str:
        """All rows as aligned text, failures marked, then UNCHECKED items, then the summary."""
        header = ("case", "quantity", "deviation", "bound", "ok")
        cells = [
            (r.case, r.quantity, f"{r.deviation:.3g}", f"{r.bound:.3g}", "ok" if r.ok else "FAIL")
            for r in self.rows
        ]
        widths = [max(len(row[i]) for row in [header, *cells]) for i in range(len(header))]
        details = ["", *(row.detail for row in self.rows)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            + (f"  {detail}" if detail else "")
            for row, detail in zip([header, *cells], details, strict=True)
        ]
        lines += [f"UNCHECKED  {case}: {reason}" for case, reason in self.skipped]
        if not self.rows:
            lines.append("nothing was checked: that is a failure")
        return "\n".join([*lines, self.summary()])


#: Keys of remarks for people: nothing in them could be checked.
REMARKS = ("format", "note", "warning")
#: Unread entries of one name that are still listed each.
MANY = 3


class MissingEntryError(KeyError):
    """A record lacks an entry that a check needs."""

    def __str__(self) -> str:
        """Return the sentence, without the quotes that ``KeyError`` adds."""
        return str(self.args[0])


class Record(Mapping[str, Any]):
    """A recorded JSON object, or an archive of arrays, that knows which entries were read.

    Objects inside it are records too. ``in`` and iterating over the keys read nothing.

    >>> record = Record({"loss": 1.5, "seed": 3, "phase": {"a": 1}}, "forward")
    >>> record["loss"], "seed" in record
    (1.5, True)
    >>> record.unread()
    ['forward/seed', 'forward/phase']

    Args:
        values: the entries.
        where: how the record is called in messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.where = where
        self._values, self._read = values, dict[str, Any]()

    def __getitem__(self, key: str) -> Any:
        """Return an entry, which counts as read from now on.

        Raises:
            MissingEntryError: there is no such entry.
        """
        if key not in self._read:
            if key not in self._values:
                raise MissingEntryError(f"{self.where} has no entry {key!r}")
            self._read[key] = _tracked(self._values[key], f"{self.where}/{key}")
        return self._read[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def plain(self) -> dict[str, Any]:
        """Return everything as ordinary dictionaries and lists; all of it counts as read."""
        return {key: _plain(self[key]) for key in self}

    def unread(self) -> list[str]:
        """Return where the entries lie that were not read; of whole objects, only the object.

        ``REMARKS`` are left out.
        """
        paths = []
        for key in self:
            if key in self._read:
                paths += _unread(self._read[key])
            elif key not in REMARKS:
                paths.append(f"{self.where}/{key}")
        return paths


def _tracked(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        return Record(value, where)
    if isinstance(value, list):
        return [_tracked(item, f"{where}[{i}]") for i, item in enumerate(value)]
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.plain()
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _unread(value: Any) -> list[str]:
    if isinstance(value, Record):
        return value.unread()
    if isinstance(value, list):
        return [path for item in value for path in _unread(item)]
    return []


class Recording:
    """A folder of recorded values, which knows what of it was read.

    Args:
        folder: holds ``meta.json``, JSON files and NPZ archives.
        system: whose values they are; ``meta.json`` may say so, and must not say otherwise.

    Raises:
        FileNotFoundError: no such folder, or no ``meta.json`` in it.
        ValueError: ``meta.json`` cannot be read, is no JSON object, or is of another system.
    """

    #: Files for people, and the settings, whose unread entries ``report_rest`` lists.
    DOCUMENTS = ("README.md", "meta.json")

    def __init__(self, folder: Path, system: str) -> None:
        if not folder.is_dir():
            text = "missing, there is no such directory; give one of recorded values"
            raise FileNotFoundError(f"{folder / 'meta.json'}: {text}")
        if not (folder / "meta.json").is_file():
            text = "missing; a directory that has no meta.json states no seeds and no bounds"
            raise FileNotFoundError(f"{folder / 'meta.json'}: {text}")
        self.folder = folder
        self._opened: dict[str, Any] = {}
        self._versions: dict[str, tuple[int, int] | None] = {}
        meta = self.json("meta.json")
        if not isinstance(meta, Record):
            kind = type(meta).__name__
            raise ValueError(f"{folder / 'meta.json'}: holds a {kind}; a JSON object is expected")
        self.meta = meta
        if meta.get("system", system) != system:
            where = folder / "meta.json"
            raise ValueError(f"{where}: is of system {meta['system']!r}; {system!r} is expected")

    def __contains__(self, name: str) -> bool:
        """Say whether the folder has a file of this name."""
        return (self.folder / name).is_file()

    def json(self, name: str) -> Any:
        """Return a JSON file's content, objects as ``Record``; an empty one if it is absent.

        Raises:
            ValueError: not JSON, or an object that has one key twice.
        """
        return self._once(name, lambda: _tracked(self._read_json(name), name))

    def _once(self, name: str, read: Callable[[], Any]) -> Any:
        """Return a file's content, read again only if it has changed since."""
        path = self.folder / name
        stat = path.stat() if path.is_file() else None
        version = None if stat is None else (stat.st_mtime_ns, stat.st_size)
        known = self._versions.get(name) == version and name in self._opened
        self._versions[name] = version  # asked for, even if it cannot be read
        if not known:
            self._opened.pop(name, None)
            self._opened[name] = read()
        return self._opened[name]

    def _read_json(self, name: str) -> Any:
        path = self.folder / name
        if name not in self:
            return {}
        try:
            return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_each_once)
        except (ValueError, RecursionError, OSError) as error:
            raise ValueError(f"{path}: not readable as JSON ({error})") from None

    def arrays(self, name: str) -> Record:
        """Return an archive's arrays; none if it is absent.

        Raises:
            ValueError: the archive, or an array in it, is damaged.
        """
        return self._once(name, lambda: Record(self._read_arrays(name), name))

    def _read_arrays(self, name: str) -> dict[str, np.ndarray]:
        path = self.folder / name
        if name not in self:
            return {}
        try:
            with np.load(path, allow_pickle=False) as archive:
                return _each_once((key, archive[key]) for key in archive.files)
        except Exception as error:  # zlib, zipfile and NumPy each raise their own kinds
            raise ValueError(f"{path}: not readable as an archive ({error})") from None

    def bound(self, *keys: str) -> float | None:
        """Return a bound of ``meta.json``, e.g. ``bound("trace", "loss_rel")``.

        None where none is given: ``Report.check`` then lists the quantity as UNCHECKED.
        """
        value: Any = self.meta.get("bounds")
        for key in keys:
            value = value.get(key) if isinstance(value, Record) else None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if number else None

    def report_rest(self, report: Report) -> None:
        """List as UNCHECKED every file that no check opened and every entry that none read.

        Many entries of one name, in many records of a file, make one line.
        """
        for path in sorted(self.folder.iterdir()):
            if path.name not in self._versions and path.name not in self.DOCUMENTS:
                report.unchecked(path.name, "no check knows this file")
        for name in sorted(self._opened):
            groups: dict[str, list[str]] = {}
            for where in _unread(self._opened[name]):
                groups.setdefault(where.rpartition("/")[2], []).append(where)
            for last, members in groups.items():
                if len(members) > MANY:
                    report.unchecked(
                        f"{name}/*/{last}", f"no check reads these {len(members)} entries"
                    )
                else:
                    for where in members:
                        report.unchecked(where, "no check reads this entry")


def _each_once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return a dictionary of pairs whose keys must differ."""
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"{key!r} occurs twice")
        values[key] = value
    return values
