"""Fixtures of the DeepOBS tests: generated data, settings put back."""

from __future__ import annotations

import pytest

from deepobs.pytorch import config
from deepobs.pytorch.datasets.generated import write_generated_data


@pytest.fixture(scope="session")
def generated_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    write_generated_data(folder, examples=32)
    return folder


@pytest.fixture(autouse=True)
def settings(generated_dir, monkeypatch):
    """Every test starts from the defaults, on generated data, on the CPU."""
    for name in ("DATA_DIR", "DEVICE", "DTYPE", "COMPAT", "NUM_WORKERS", "DETERMINISTIC"):
        monkeypatch.delenv(f"DEEPOBS_{name}", raising=False)
    config.reset()
    config.set_data_dir(generated_dir)
    config.set_default_device("cpu")
    config.set_is_deterministic(False)
    yield
    config.reset()
