"""Compare this package with recorded reference arrays: ``run(golden_dir) -> Report``.

Cases, settings and bounds come from the directory's files and its ``meta.json``; nothing about a
particular scan is known here. Each file of the format has one checker; files, arrays and settings
without one are listed as UNCHECKED.
"""

from __future__ import annotations

from pathlib import Path

# each import registers the checkers of one part of the format
from ptycho_torch.parity import config_cases, data_cases, image_cases, network_cases, physics_cases  # noqa: F401 - registration, after the registry
from ptycho_torch.parity.cases import Golden, handler_for
from trainrig.parity import Report

__all__ = ["run"]


def run(golden_dir: str | Path) -> Report:
    """Check every file of a golden directory.

    Args:
        golden_dir: a folder in the format of its own README: arrays as NPZ, scalars as JSON.

    Raises:
        FileNotFoundError: the folder or its ``meta.json`` is missing.
        ValueError: ``meta.json`` cannot be read or belongs to another system.
    """
    golden = Golden.open(Path(golden_dir))
    report = Report()
    for path in sorted(golden.folder.iterdir()):
        if path.name in (*Golden.DOCUMENTS, golden.scan_name) or not path.is_file():
            continue
        with report.attempt(path.name):
            handler = handler_for(golden, path)
            if handler is not None:
                handler(golden, path, report)
    networks = golden.meta.get("networks", {})
    for name in networks:
        if f"{name}.npz" not in golden:
            networks[name].plain()
            report.unchecked(name, "named in meta.json, file is missing")
    golden.report_rest(report)
    return report
