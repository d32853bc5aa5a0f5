"""The record of a run: ``metrics.jsonl`` (everything) and ``progress.txt`` (what a person reads).

Both are append-only. A checkpoint stores their lengths in bytes, and a resumed run cuts them back
to these lengths, so that no row is doubled or lost whatever moment the process died at. The order
that makes this work: rows up to step k are made durable *before* the checkpoint of step k appears.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainrig.files import naming
from trainrig.tracking.progress import format_line

#: Keys that depend on the clock; they appear in progress.txt alone.
TIMING_KEYS = ("elapsed", "steps_per_second")


class MetricLog:
    """Appends rows to a run's two logs.

    Args:
        folder: the run's ``logs`` folder; made if absent.
        columns: keys shown in ``progress.txt``, in this order, where a row has them; all other
            keys go to ``metrics.jsonl`` only.
    """

    def __init__(self, folder: Path, columns: tuple[str, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.columns = columns
        self.paths = {name: folder / name for name in ("progress.txt", "metrics.jsonl")}
        self._files = {name: path.open("ab") for name, path in self.paths.items()}

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one row; non-finite numbers become ``null`` in the JSON."""
        shown = {key: row[key] for key in self.columns if key in row}
        lines = {"progress.txt": format_line(shown)}
        lines["metrics.jsonl"] = json.dumps(kept(row), allow_nan=False)
        for name, line in lines.items():
            with naming(self.paths[name]):
                self._files[name].write((line + "\n").encode())
                self._files[name].flush()  # readers see it at once; durability comes with `sync`

    def sync(self) -> dict[str, int]:
        """Make all rows durable and return the length of each file in bytes."""
        for name, file in self._files.items():
            with naming(self.paths[name]):
                file.flush()
                os.fsync(file.fileno())
        return {name: path.stat().st_size for name, path in self.paths.items()}

    def truncate(self, sizes: Mapping[str, int]) -> None:
        """Cut the files back to the lengths that ``sync`` returned (0 for absent names).

        Raises:
            ValueError: a file is shorter than recorded, so rows of the past are missing.
        """
        lengths = {path: int(sizes.get(name, 0)) for name, path in self.paths.items()}
        for path, size in lengths.items():
            present = path.stat().st_size
            if present < size:
                raise ValueError(
                    f"{path}: {present} bytes, but the checkpoint was saved after {size}; "
                    "restore the file or start over with --overwrite"
                )
        for path, size in lengths.items():
            os.truncate(path, size)

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows of ``metrics.jsonl``."""
        text = self.paths["metrics.jsonl"].read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    def close(self) -> None:
        """Close both files; what a full disk did not take was reported when it was written."""
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()


def kept(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``metrics.jsonl`` holds of a row: no clock, and None for what is not finite."""
    return {key: _strict(value) for key, value in row.items() if key not in TIMING_KEYS}


def _strict(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
