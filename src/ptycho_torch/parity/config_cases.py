"""The configuration bridge against recorded snapshots of the flat dictionary."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ptycho_torch.config import canonical as canonical_config
from ptycho_torch.config.params import LEGACY_DEFAULTS, update_legacy_dict
from ptycho_torch.parity.cases import Golden, checks
from trainrig.parity import Record, Report

PATHS = {"train_data_file", "test_data_file", "model_path", "output_dir"}


def build(description: Record) -> Any:
    """The canonical dataclass that a snapshot describes."""
    cls = getattr(canonical_config, description["class"])
    fields = {k: Path(v) if k in PATHS else v for k, v in description["fields"].items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return cls(model=canonical_config.ModelConfig(**description["model"]), **fields)


def snapshot(record: Record, name: str) -> dict[str, Any]:
    """The flat dictionary after the update, or updates, of one snapshot."""
    described = record["snapshots"][name]["dataclass"]
    target = dict(record["defaults_before_update"])
    for step in described.get("sequence", [name]):
        update_legacy_dict(target, build(record["snapshots"][step]["dataclass"]))
    return target


@checks("params_cfg_snapshots.json")
def snapshots(golden: Golden, path: Path, report: Report) -> None:
    """Defaults and every snapshot, values and types."""
    recorded = golden.json(path.name)
    with report.attempt(path.stem):
        defaults = recorded["defaults_before_update"].plain()
        _same(report, path.stem, "defaults", LEGACY_DEFAULTS, defaults)
    for name in recorded["snapshots"]:
        with report.attempt(f"{path.stem}/{name}"):
            wanted = recorded["snapshots"][name]["params_cfg"].plain()
            _same(report, path.stem, name, snapshot(recorded, name), wanted)


def _same(report: Report, case: str, name: str, found: dict, wanted: dict) -> None:
    wrong = [
        f"{key}: {found.get(key, 'missing')!r} for {wanted.get(key, 'nothing')!r}"
        for key in sorted(set(found) | set(wanted))
        if key not in found
        or key not in wanted
        or found[key] != wanted[key]
        or type(found[key]) is not type(wanted[key])
    ]
    report.equal(case, name, not wrong, "; ".join(wrong) or f"{len(wanted)} keys")
