"""Sets that stay on disk: what is mapped, what is staged, and what a training on them costs."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import measure_ptycho_memory
from mapped_memory import peak_anonymous, write_large_scan
from ptycho_torch.data.staging import open_mapped
from ptycho_torch.physics.simulate import SimulationSettings, simulate
from ptycho_torch.raw_data import RawDataTorch

ALLOCATE = "import numpy, sys; numpy.ones(int(sys.argv[1]) << 17).sum()"
MAP = "import numpy, sys; numpy.load(sys.argv[1], mmap_mode='r').sum()"


def test_only_anonymous_memory_is_counted(tmp_path):
    np.save(tmp_path / "zeros.npy", np.zeros(100 << 17))
    little = peak_anonymous([sys.executable, "-c", ALLOCATE, "1"])
    much = peak_anonymous([sys.executable, "-c", ALLOCATE, "100"])
    mapped = peak_anonymous([sys.executable, "-c", MAP, tmp_path / "zeros.npy"])
    assert 80 << 20 < much - little < 120 << 20
    assert mapped - little < 20 << 20
    with pytest.raises(RuntimeError, match="no such thing"):
        peak_anonymous([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_compressed_frames_are_staged_with_all_the_rest(tmp_path):
    scan = RawDataTorch.from_arrays(simulate(SimulationSettings(rows=3)), "simulated")
    scan.label_amp = scan.label_phase = np.ones(scan.diff3d.shape, np.float32)
    for compressed in (False, True):
        path = tmp_path / f"{compressed}.npz"
        scan.to_file(path, compressed=compressed)
        found = open_mapped(path, tmp_path / "cache")
        assert isinstance(found.diff3d, np.memmap)
        assert (tmp_path / "cache").exists() == compressed
        for name in ("diff3d", "coords", "probeGuess", "objectGuess", "label_amp", "label_phase"):
            np.testing.assert_array_equal(getattr(found, name), getattr(scan, name))


def test_a_large_scan_has_as_many_frames_as_asked(tmp_path):
    assert write_large_scan(tmp_path / "scan.npz", 130) == 130 * 64 * 64 * 4
    scan = RawDataTorch.from_file(tmp_path / "scan.npz", mapped=True)
    assert len(scan) == 130
    np.testing.assert_array_equal(scan.diff3d[100:], scan.diff3d[:30])


@pytest.mark.slow
def test_a_large_set_trains_from_disk(capsys):
    assert measure_ptycho_memory.main(["--gib", "0.5", "--groups", "100"]) == 0
    difference = float(capsys.readouterr().out.split()[-2])
    assert difference < 120  # MiB, of 512 MiB of frames
