"""Where data sets and prepared files lie, for users with a home folder and without."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from trainrig.data.locations import data_root
from trainrig.files import cache_dir


@pytest.fixture
def homeless(monkeypatch):
    """A user that the machine does not know, as in many containers."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "TRAINRIG_CACHE_DIR", "TRAINRIG_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_cache_is_a_temporary_folder():
    assert cache_dir() == Path(tempfile.gettempdir()) / f"trainrig-cache-{os.getuid()}"
    assert data_root() == Path("data")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_a_tilde_is_refused_with_the_remedy(monkeypatch):
    with pytest.raises(ValueError, match="~/data: there is no home folder; set HOME"):
        data_root("~/data")
    monkeypatch.setenv("TRAINRIG_CACHE_DIR", "~/cache")
    with pytest.raises(ValueError, match="~/cache: there is no home folder"):
        cache_dir()


def test_with_a_home(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("TRAINRIG_CACHE_DIR", raising=False)
    assert cache_dir() == tmp_path / ".cache/trainrig"
    assert data_root("~/data") == tmp_path / "data"


HOMELESS = """
import pwd, runpy, sys
def unknown(number):
    raise KeyError(f"getpwuid(): uid not found: {number}")
pwd.getpwuid = unknown
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
COMMANDS = [
    "src/trainrig/command.py data list",
    "src/trainrig/command.py doctor",
    "scripts/run_deepobs.py quadratic_deep --lr 0.01 -N 1 --output_dir {folder}",
    "scripts/run_experiment.py --print-config --device cpu",
    "scripts/simulate_ptycho.py {folder}/scan.npz --rows 4",
    """analysis/pytorch_train.py --config configs/icl/images_identical.py --source synthetic
    --device cpu --num-layers 1 --num-heads 2 --max-steps 1 --batch-size 2 --eval-batches 1
    --set embedding.emb_dim=16 --output-dir {folder}/icl --downsample --no-track""",
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words.split()[0].split("/")[-1])
def test_commands_work_without_a_home(command, repo_root, tmp_path):
    known = {k: v for k, v in os.environ.items() if k not in ("HOME", "TRAINRIG_CACHE_DIR")}
    ended = subprocess.run(
        [sys.executable, "-c", HOMELESS, *command.format(folder=tmp_path).split()],
        cwd=repo_root,
        env={**known, "TMPDIR": str(tmp_path), "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert not list(repo_root.glob("~*"))
