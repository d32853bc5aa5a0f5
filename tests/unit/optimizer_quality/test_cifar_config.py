"""The base file holds the specification's values; mistakes are named before anything is read."""

from __future__ import annotations

import pytest

from optimizer_quality.config import CifarConfig, OptimizerConfig, switch_overrides
from trainrig.config import apply_overrides, from_dict, load_config


@pytest.fixture
def base(repo_root):
    return load_config(repo_root / "configs/optimizer_quality/base_config.yaml", CifarConfig)


def test_base_file_is_the_specification(base):
    assert base == CifarConfig()
    assert (base.seed, base.device, base.num_workers, base.train_val_split) == (42, "cuda", 4, 0.9)
    assert (base.model, base.batch_size, base.num_epochs, base.eval_every) == (
        "resnet8",
        128,
        200,
        10,
    )
    assert base.optimizer.keywords() == {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}


def test_adamw_gets_betas_and_no_momentum():
    keywords = OptimizerConfig(type="adamw", lr=1e-3).keywords()
    assert keywords == {"lr": 1e-3, "weight_decay": 1e-4, "betas": (0.9, 0.999)}


def test_another_optimizer_uses_its_own_rate_unless_one_is_given(base):
    def switched(overrides):
        return apply_overrides(base, switch_overrides(base, overrides)).optimizer.lr

    assert switched({"optimizer.type": "adamw"}) is None
    assert switched({"optimizer.type": "adamw", "optimizer.lr": "1e-3"}) == 1e-3
    assert switched({"optimizer.type": "sgd"}) == 0.1


def test_arguments_from_the_command_line_become_values(base):
    overrides = {"optimizer.arguments.nesterov": "true", "optimizer.arguments.dampening": "0"}
    keywords = apply_overrides(base, overrides).optimizer.keywords()
    assert keywords["nesterov"] is True
    assert keywords["dampening"] == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": {"type": "adamv"}}, "did you mean 'adam"),
        ({"optimizer": {"arguments": {"nestrov": True}}}, "did you mean 'nesterov'"),
        ({"optimizer": {"lr": -1}}, "optimizer.lr is -1"),
        ({"optimizer": {"type": "torch.optim.SDG"}}, "did you mean 'SGD'"),
        ({"train_val_split": 1.0}, r"train_val_split is 1.0; a number inside \(0, 1\)"),
        ({"dataset": "cifar"}, "did you mean 'cifar10'"),
        ({"model": "resnet9"}, "did you mean 'resnet8'"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "fp8"}, "accepted: fp32, bf16"),
        ({"sede": 1}, "did you mean 'seed'"),
    ],
)
def test_mistakes_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(CifarConfig, values, "test")


def test_identity_leaves_out_what_changes_no_number(base):
    moved = apply_overrides(base, {"num_workers": 0, "results_dir": "x", "data_dir": "y"})
    assert moved.identity() == base.identity()
    assert apply_overrides(base, {"seed": 1}).identity() != base.identity()
