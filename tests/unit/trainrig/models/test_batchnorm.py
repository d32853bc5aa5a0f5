"""The debiased moving averages against their slow twin, and how they differ from torch's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from trainrig.models.batchnorm import DECAY, EPS, DebiasedBatchNorm
from trainrig.models.resnet import ResNetEncoder


def batches(n):
    return [torch.randn(6, 3, 4, 5) * (i + 1) + i for i in range(n)]


def slow_twin(xs):
    """Averages after each batch, written from the definition; (2, C) each."""
    hidden, averages = torch.zeros(2, 3), []
    for n, x in enumerate(xs, start=1):
        mean = x.mean(dim=(0, 2, 3))
        variance = (x**2).mean(dim=(0, 2, 3)) - mean**2  # biased
        hidden = DECAY * hidden + (1 - DECAY) * torch.stack([mean, variance])
        averages.append(hidden / (1 - DECAY**n))
    return hidden, averages


def test_averages_follow_the_slow_twin():
    norm, xs = DebiasedBatchNorm(3), batches(5)
    hidden, averages = slow_twin(xs)
    for x, expected in zip(xs, averages, strict=True):
        norm(x)
        assert_close(norm.average, expected, rtol=1e-5, atol=1e-5)
    assert_close(norm.hidden, hidden, rtol=1e-5, atol=1e-5)
    assert norm.counter.item() == 5


def test_training_normalises_with_the_batch_and_evaluation_with_the_average():
    norm, (x, other) = DebiasedBatchNorm(3), batches(2)
    y = norm(x)
    assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    assert_close(y.var(dim=(0, 2, 3), correction=0), torch.ones(3), rtol=0, atol=1e-3)
    norm.eval()
    before = norm.average.clone()
    mean, variance = (row.view(1, 3, 1, 1) for row in norm.average)
    assert_close(norm(other), (other - mean) / (variance + EPS).sqrt(), rtol=1e-4, atol=1e-5)
    assert torch.equal(before, norm.average)


def test_first_average_is_the_batch_itself_unlike_torch():
    norm, theirs, (x,) = DebiasedBatchNorm(3), torch.nn.BatchNorm2d(3, momentum=0.1), batches(1)
    norm(x), theirs(x)
    assert_close(norm.average[1], x.var(dim=(0, 2, 3), correction=0))
    assert (norm.average[1] - theirs.running_var).abs().max() > 0.01


def test_gradients_flow_and_state_survives_a_round_trip():
    norm, (x,) = DebiasedBatchNorm(3, zero_scale=True), batches(1)
    assert not norm.weight.any()
    norm(x.requires_grad_()).square().sum().backward()
    assert norm.weight.grad is not None
    copy = DebiasedBatchNorm(3)
    copy.load_state_dict(norm.state_dict())
    assert torch.equal(copy.average, norm.average)
    assert copy.counter.item() == 1


def test_norms_updated_together_have_the_bits_of_norms_updated_one_by_one():
    encoder = ResNetEncoder(16)
    alone = copy.deepcopy(encoder)
    for module in alone.modules():
        if isinstance(module, DebiasedBatchNorm):
            module.collected = None
    for _ in range(3):
        x = torch.randn(4, 1, 28, 28)
        for model in (encoder, alone):
            model(x).sum().backward()
    for (name, one), other in zip(
        encoder.state_dict().items(), alone.state_dict().values(), strict=True
    ):
        assert torch.equal(one, other), name
    for one, other in zip(encoder.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_a_pass_that_failed_leaves_no_statistics_to_the_next_one():
    encoder = ResNetEncoder(16)
    broken = encoder.groups[3].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        encoder(torch.randn(4, 1, 28, 28))
    broken.remove()
    encoder(torch.randn(4, 1, 28, 28))
    assert encoder.stem_norm.counter == 1
