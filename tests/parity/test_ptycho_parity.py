"""The committed golden directory, and directories that must not pass."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from ptycho_torch.parity import run
from ptycho_torch.parity.cases import Golden, handler_for
from trainrig.parity import Report


@pytest.fixture(scope="module")
def golden(repo_root):
    return repo_root / "tests" / "parity" / "golden" / "ptycho"


def test_every_recorded_array_agrees(golden):
    report = run(golden)
    assert not report.failed, report.table()
    assert len(report.rows) > 100
    # the committed recording leaves out arrays that follow from others
    other = [case for case, reason in report.skipped if not reason.endswith(" is not recorded")]
    assert other == ["tf_network_table"]  # whose activations only the networks' outputs can show


def test_a_changed_array_fails(golden, tmp_path):
    for name in ("meta.json", "synthetic_scan.npz", "translate_golden.npz"):
        shutil.copy(golden / name, tmp_path / name)
    arrays = dict(np.load(tmp_path / "translate_golden.npz"))
    arrays["out"] = arrays["out"] + 1e-3
    np.savez(tmp_path / "translate_golden.npz", **arrays)
    report = run(tmp_path)
    assert report.exit_code == 1
    assert {row.quantity for row in report.failed} == {"out"}


def test_a_record_of_maxima_is_checked(golden, tmp_path):
    for path in golden.iterdir():
        (tmp_path / path.name).symlink_to(path)
    forward, stitched = (np.load(golden / f"{n}_golden.npz") for n in ("forward", "stitch"))
    arrays = {
        "amplitude": forward["amplitude"],
        "stitch_M20": stitched["M20"],
    }
    opened, path = Golden.open(tmp_path), tmp_path / "tf_agreement.json"
    for factor in (1, 1.001):
        record = {k: {"ref_max": factor * float(np.abs(a).max())} for k, a in arrays.items()}
        path.write_text(json.dumps(record))
        report = Report()
        handler_for(opened, path)(opened, path, report)
        wanted = {f"{name} ref_max" for name in arrays}
        assert {row.quantity for row in report.rows} == wanted
        assert {row.quantity for row in report.failed} == (set() if factor == 1 else wanted)


def test_unknown_files_are_listed_and_nothing_checked_fails(golden, tmp_path):
    for name in ("meta.json", "synthetic_scan.npz"):
        shutil.copy(golden / name, tmp_path / name)
    np.savez(tmp_path / "surprise.npz", a=np.zeros(1))
    report = run(tmp_path)
    assert report.exit_code == 1
    assert "surprise.npz" in report.table()


def test_a_missing_setting_is_unchecked_not_invented(golden, tmp_path):
    for name in ("synthetic_scan.npz", "stitch_golden.npz"):
        shutil.copy(golden / name, tmp_path / name)
    meta = json.loads((golden / "meta.json").read_text())
    del meta["stitch_M"]
    (tmp_path / "meta.json").write_text(json.dumps(meta))
    report = run(tmp_path)
    assert any("stitch_M" in reason for _, reason in report.skipped)


def test_a_directory_without_settings_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"meta\.json"):
        run(tmp_path)


@pytest.mark.parametrize(("change", "ok"), [(1.5e-5, True), (5e-3, False)])
def test_ring_correlations_are_judged_by_what_storage_does(golden, tmp_path, change, ok):
    for name in ("meta.json", "synthetic_scan.npz", "metrics_golden.json", "metrics_golden.npz"):
        shutil.copy(golden / name, tmp_path / name)
    arrays = dict(np.load(tmp_path / "metrics_golden.npz"))
    arrays["frc_amp"] = arrays["frc_amp"] + change  # 1.5e-5: as from images not rounded to float32
    np.savez(tmp_path / "metrics_golden.npz", **arrays)
    report = run(tmp_path)
    assert {row.quantity for row in report.failed} == (set() if ok else {"frc_amp"})
    (row,) = [row for row in report.rows if row.quantity == "frc_amp"]
    assert 1e-6 < row.bound < 1e-3


def test_scalar_metrics_keep_their_bound(golden, tmp_path):
    for name in ("meta.json", "synthetic_scan.npz", "metrics_golden.json", "metrics_golden.npz"):
        shutil.copy(golden / name, tmp_path / name)
    scalars = json.loads((tmp_path / "metrics_golden.json").read_text())
    scalars["ssim_amp"] *= 1 + 2e-6
    (tmp_path / "metrics_golden.json").write_text(json.dumps(scalars))
    assert {row.quantity for row in run(tmp_path).failed} == {"ssim_amp"}
