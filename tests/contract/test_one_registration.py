"""One file and one registration make a thing known to every system and command that can use it.

Optimizer, data set and test problem, registered in a copy of their tables; an experiment is another
process, in ``tests/integration/test_extending.py``, which also runs the page's own examples.
"""

from __future__ import annotations

import json

import numpy as np
import optimizers
import pytest
import torch
from test_systems import SYSTEMS, data  # noqa: F401 - a fixture
from torch import nn

from deepobs.pytorch.datasets import quadratic
from deepobs.pytorch.testproblems import TESTPROBLEMS, TestProblem
from trainrig.command import main as trainrig
from trainrig.data import catalogue
from trainrig.data.catalogue import DataSet, Images
from trainrig.data.mnist import RawImages
from trainrig.optim import OPTIMIZERS, make_optimizer


@pytest.mark.parametrize("system", SYSTEMS)
def test_an_optimizer_trains_in_every_system(system, data, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(OPTIMIZERS, "_entries", dict(OPTIMIZERS._entries))
    OPTIMIZERS.register("brand_new")(optimizers.SignMomentum)
    status, _ = SYSTEMS[system]("Brand_New", tmp_path / "run", data)
    assert status == "complete"
    with pytest.raises(KeyError, match="did you mean 'brand_new'"):
        make_optimizer("brand_nwe", nn.Linear(2, 2).parameters())


def read_bars(folder, split):
    """Return 8 x 8 images of four kinds from a file."""
    with np.load(folder / f"{split}.npz") as archive:
        return RawImages(archive["images"], archive["labels"])


@pytest.fixture
def bars(tmp_path, monkeypatch):
    """A set with files, registered as docs/extending.md says; return the data folder."""
    monkeypatch.setenv("TRAINRIG_DATA_DIR", str(tmp_path / "data"))
    added = catalogue.register(
        DataSet(
            name="bars",
            what="four kinds of bars, 8 px",
            folders=("bars",),
            parts=(("train.npz",), ("test.npz",)),
            images=Images(
                reader=f"{__name__}:read_bars",
                shape=(1, 8, 8),
                n_classes=4,
                mean=(0.25,),
                std=(0.4,),
            ),
            licence="public domain",
            page="https://example.org/bars",
        )
    )
    yield tmp_path / "data"
    catalogue.DATA_SETS.remove(added)


def write_bars(root):
    (root / "bars").mkdir(parents=True)
    labels = np.arange(64) % 4
    images = np.zeros((64, 1, 8, 8), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[0, :, 2 * label] = 255
    for split in ("train", "test"):
        np.savez(root / "bars" / f"{split}.npz", images=images, labels=labels)


def test_a_data_set_is_known_to_every_command_and_system(bars, tmp_path, capsys, monkeypatch):
    assert trainrig(["data", "list"]) == 0
    assert "bars           missing  by hand" in capsys.readouterr().out
    assert trainrig(["data", "get", "bars"]) == 1
    assert "cannot be downloaded (public domain)" in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="bars: no data found"):
        cifar(tmp_path / "none")
    write_bars(bars)
    assert trainrig(["data", "list"]) == 0
    assert "bars           found " in capsys.readouterr().out
    assert trainrig(["data", "verify", "bars"]) == 0
    assert trainrig(["doctor"]) in (0, 1)
    assert "data: bars" in capsys.readouterr().out
    for words in (["cifar", "train", "--help"], ["data", "get", "--help"]):
        with pytest.raises(SystemExit):
            trainrig(words)
        assert "bars" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        trainrig(["data", "get", "brs"])
    assert "did you mean 'bars'" in capsys.readouterr().err

    assert cifar(tmp_path / "cifar").status == "complete"
    assert deepobs(tmp_path / "deepobs") == "complete"
    status, config = icl(tmp_path / "icl")
    assert (status, config["images"]["image_source"]) == ("complete", "bars")
    with pytest.raises(ValueError, match="registered already"):
        catalogue.register(DataSet(name="bars", what="again"))


def cifar(path):
    from optimizer_quality.config import CifarConfig
    from optimizer_quality.experiment import Runtime, run

    config = CifarConfig(
        dataset="bars",
        device="cpu",
        num_classes=4,
        train_items=24,
        train_val_split=0.7,
        batch_size=8,
        num_epochs=1,
        crop_px=8,
        data_dir=None,
    )
    return run(config, Runtime(quiet=True, tracker="none"), path=path, log_path=path / "logs")


def deepobs(path):
    from deepobs.experiment import DeepObsConfig, Runtime, run

    settings = DeepObsConfig(
        testproblem="bars_mlp", optimizer="Adam", lr=1e-3, batch_size=16, num_epochs=1
    )
    data_dir = path.parent / "data"
    return run(settings, Runtime(verbose=False, data_dir=data_dir), path=path).status


def icl(path):
    from pytorch_port.config.runtime import Runtime
    from pytorch_port.config.schema import IclConfig
    from pytorch_port.train.experiment import run
    from trainrig.config import apply_overrides

    sizes = {"n_rare_classes": 2, "n_common_classes": 1, "n_holdout_classes": 1}
    settings = {
        "data.source": "bars",
        "data.seq_config.ways": 1,
        "data.seq_config.p_bursty": 0.0,
        "data.seq_config.p_bursty_common": 0.0,
        "data.seq_config.p_bursty_zipfian": 0.0,
        "embedding.example_encoding": "linear",
        "embedding.emb_dim": 8,
        "transformer.num_layers": 1,
        "transformer.num_heads": 2,
        "training.batch_size": 2,
        "training_steps": 1,
        "evaluation.batches": 1,
        "evaluation.batch_size": 2,
        **{f"data.generator_config.{key}": value for key, value in sizes.items()},
    }
    config = apply_overrides(IclConfig(), settings)
    result = run(config, Runtime(device="cpu", tracker="none", show_progress=False), path=path)
    return result.status, json.loads((path / "config.json").read_text())


class bowl(TestProblem):  # noqa: N801 - DeepOBS's way of naming problems
    """A quadratic of its own."""

    has_accuracy = False

    def make_data(self):
        return quadratic(self.batch_size)

    def make_net(self):
        net = nn.Linear(100, 1)
        nn.init.ones_(net.weight)
        return net

    def forward_losses(self, batch, *, accuracy):
        return self.net(batch[0]).square().sum(1), None


def test_a_test_problem_is_known_to_every_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(TESTPROBLEMS, "_entries", dict(TESTPROBLEMS._entries))
    TESTPROBLEMS.register("bowl")(bowl)
    torch.manual_seed(0)
    where = ["--output-dir", str(tmp_path), "--bs", "128", "-N", "1"]
    run = ["deepobs", "run", "bowl", "--optimizer", "SGD", "--lr", "1e-3", "--quiet", *where]
    assert trainrig(run) == 0
    tune = ["deepobs", "tune", "bowl", "--optimizer", "Adam", "--grid", "lr=1e-2,1e-3", *where]
    assert trainrig([*tune, "--jobs", "1"]) == 0
    capsys.readouterr()
    assert trainrig(["deepobs", "plot", str(tmp_path), "--get_best_run"]) == 0
    assert "| bowl | Adam |" in capsys.readouterr().out
    smoke = ["deepobs", "run", "bowl", "--smoke", "--output-dir", str(tmp_path / "smoke")]
    assert trainrig(smoke) == 0
    estimate = ["deepobs", "estimate", "--optimizer", "Adam", "--test_problem", "bowl"]
    assert trainrig([*estimate, "-N", "1", "--num_runs", "1"]) == 0
    assert trainrig(["deepobs", "run", "bwol", "--lr", "1", *where]) == 1
    assert "did you mean 'bowl'" in capsys.readouterr().err
