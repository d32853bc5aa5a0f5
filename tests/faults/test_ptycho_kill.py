"""A ptychography training killed with SIGKILL and resumed ends as an undisturbed one."""

from __future__ import annotations

import pytest
import simulate_ptycho

from kills import Command, soak

KILLS = 6
FLAGS = """
    --nepochs 4 --batch_size 4 --n_groups 16 --gridsize 1 --n_filters_scale 1 --accelerator cpu
    --no-do_stitching --quiet
"""


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [(), ("--overlap-frames", "4")])
def test_killed_at_random_moments(tmp_path, overlap):
    scan = tmp_path / "scan.npz"
    assert simulate_ptycho.main([str(scan), "--rows", "4"]) == 0

    def argv(path):
        return [*FLAGS.split(), *overlap, "--train_data_file", scan, "--output_dir", path]

    command = Command("ptycho", "train_ptycho", argv, ("ptycho_torch.train.workflows",))
    for tallies in soak([command], tmp_path / "soak", seconds=0, kills=KILLS):
        found = tallies["ptycho"]
    assert found.kills >= KILLS
    assert found.resumes >= 1
    assert (found.mismatches, found.leaked) == (0, 0), found.differing
