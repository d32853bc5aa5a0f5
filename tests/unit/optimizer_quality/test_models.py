"""Parameter counts by the specification, activations by name."""

from __future__ import annotations

import pytest
import torch

from optimizer_quality.models import MODELS, ResNet, ResNet8, build_model, count_parameters


@pytest.mark.parametrize(
    ("name", "count"), [("resnet8", 175_258), ("resnet8_6n2", 78_042), ("resnet20", 272_474)]
)
def test_parameter_counts(name, count):
    assert count_parameters(MODELS[name](num_classes=10)) == count


def test_the_specified_constructor():
    assert isinstance(ResNet8(num_classes=10), ResNet)


def test_activations_have_names_and_shapes():
    model = ResNet8(num_classes=10).eval()
    x = torch.randn(2, 3, 32, 32)
    found = model.activations(x)
    assert list(found) == model.layer_names
    assert found["stem"].shape == (2, 16, 32, 32)
    assert found["stage3.1"].shape == (2, 64, 8, 8)
    assert torch.equal(found["fc"], model(x))
    assert list(model.activations(x, ["pool"])) == ["pool"]
    assert not model.pool._forward_hooks


def test_unknown_activation_names_the_nearest():
    with pytest.raises(KeyError, match=r"did you mean 'stage\d\.\d'"):
        ResNet8().activations(torch.zeros(1, 3, 32, 32), ["stage1.9"])


def test_bfloat16_changes_the_forward_pass_and_returns_float32():
    torch.manual_seed(0)
    model = ResNet(10, 1).eval()
    x = torch.randn(2, 3, 32, 32)
    full = model(x)
    model.precision = "bf16"
    half = model(x)
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    assert torch.allclose(full, half, atol=0.05, rtol=0.05)


def test_kernels_take_the_asked_memory_format():
    model = build_model("resnet8_6n2", 10, in_channels=1, precision="fp32", channels_last=True)
    assert model.stage1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    assert model.stem[0].weight.shape[1] == 1
