from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from deepobs.pytorch import config
from deepobs.pytorch.testproblems import ADDITIONS, TESTPROBLEMS


def test_defaults(monkeypatch):
    config.reset()
    assert config.get_data_dir() == "data_deepobs"
    assert config.get_baseline_dir() == "baselines_deepobs"
    assert config.get_dtype() is torch.float32
    assert config.get_num_workers() == 0
    assert config.get_is_deterministic() is True
    assert config.get_compat() == "reference"


def test_environment_then_code(monkeypatch):
    config.reset()
    monkeypatch.setenv("DEEPOBS_DATA_DIR", "elsewhere")
    monkeypatch.setenv("DEEPOBS_DETERMINISTIC", "false")
    monkeypatch.setenv("DEEPOBS_DTYPE", "float64")
    assert config.get_data_dir() == "elsewhere"
    assert config.get_is_deterministic() is False
    assert config.get_dtype() is torch.float64
    config.set_data_dir("here")
    assert config.get_data_dir() == "here"


@pytest.mark.parametrize(
    ("setter", "value", "text"),
    [
        (config.set_compat, "referense", "did you mean 'reference'"),
        (config.set_dtype, "float16", "accepted: float32, float64"),
        (config.set_num_workers, -1, "at least 0"),
        (config.set_default_device, "tpu", "give auto, cpu, cuda"),
    ],
)
def test_bad_values_are_refused_with_what_is_accepted(setter, value, text):
    with pytest.raises(ValueError, match=text):
        setter(value)


def test_every_problem_has_a_default_entry():
    assert set(config.get_testproblem_default_settings()) == set(TESTPROBLEMS)
    assert len(set(TESTPROBLEMS) - set(ADDITIONS)) == 26
    for name in (*config.get_small_test_set(), *config.get_large_test_set()):
        setting = config.get_testproblem_default_settings()[name]
        assert setting["batch_size"]
        assert setting["num_epochs"]


def test_importing_the_analyzer_does_not_import_torch():
    code = (
        "import sys, deepobs.analyzer.plots, deepobs.analyzer.tables, deepobs.analyzer.profiles;"
        "print('torch' in sys.modules)"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(child.stdout.strip().lower()) is False
