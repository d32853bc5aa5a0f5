"""What training from a memory map costs in memory: a large set against a hundred frames.

Frames that are mapped from a file belong to the system's page cache; what a run needs for itself is
its anonymous memory (``RssAnon`` of Linux), which is watched while it runs.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ptycho_torch.physics.simulate import SimulationSettings, simulate
from ptycho_torch.scan.npz_format import write_scan
from trainrig.files import scratch_folder

BLOCK = 100  # simulated frames, repeated to fill a set
PERIOD_S = 0.005


def write_large_scan(path: Path, frames: int) -> int:
    """Write an uncompressed scan on a square raster of repeated frames; returns its frame bytes."""
    block = simulate(SimulationSettings(rows=10, seed=0))
    images = np.asarray(block["diff3d"], np.float32)
    side = int(np.ceil(np.sqrt(frames)))
    x, y = (6.0 * part.ravel()[:frames] for part in np.meshgrid(*2 * [np.arange(side)]))
    with scratch_folder(path.parent, path.name) as scratch:
        shape = (frames, *images.shape[1:])
        target = np.lib.format.open_memmap(scratch / "frames.npy", "w+", np.float32, shape)
        for start in range(0, frames, BLOCK):
            target[start : start + BLOCK] = images[: min(BLOCK, frames - start)]
        arrays = {"diff3d": target, "xcoords": x, "ycoords": y, "probeGuess": block["probeGuess"]}
        write_scan(path, arrays)
    return target.nbytes


def peak_anonymous(command: Sequence[str | Path]) -> int:
    """Run a command to its end and return the largest anonymous memory that it held, in bytes.

    Raises:
        RuntimeError: the command failed; with its last lines.
    """
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(list(map(str, command)), stdout=output, stderr=output)
        status, peak = Path(f"/proc/{process.pid}/status"), 0
        while process.poll() is None:
            lines = [line for line in status.read_text().splitlines() if "RssAnon" in line]
            peak = max(peak, *(1024 * int(line.split()[1]) for line in lines), 0)
            time.sleep(PERIOD_S)
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{command[1]}: failed\n{output.read()[-2000:]}")
    return peak


def compare(script: Path, gib: float, groups: int, flags: Sequence[str]) -> Iterator[str]:
    """Train on a set of that size and on 100 frames by the same command; yields lines.

    Args:
        script: ``train_ptycho.py``.
        gib: size of the large set's frames.
        groups: drawn from the whole set for one epoch, or all if there are fewer.
        flags: more of the script's flags.
    """
    size = 4 * SimulationSettings().size ** 2
    peaks = []
    with scratch_folder(name="mapped") as folder:
        for frames in (BLOCK, max(BLOCK, round(gib * 2**30 / size))):
            scan = folder / "scan.npz"
            held = write_large_scan(scan, frames)
            command: list[str | Path] = [
                sys.executable,
                script,
                "--train_data_file",
                scan,
                "--mapped",
            ]
            command += ["--output_dir", folder / f"run_{frames}", "--nepochs", "1"]
            command += ["--n_groups", str(groups), "--no-do_stitching", *flags]
            began = time.perf_counter()
            peaks.append(peak_anonymous(command))
            yield (
                f"{frames} frames ({held / 2**20:.0f} MiB): peak anonymous memory "
                f"{peaks[-1] / 2**20:.0f} MiB, {time.perf_counter() - began:.0f} s"
            )
    yield f"difference {(peaks[1] - peaks[0]) / 2**20:.0f} MiB"
