"""Batch normalisation's sums against float64, in every layout and with any number of threads."""

from __future__ import annotations

import copy
import ctypes
import math
import subprocess
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from trainrig import native
from trainrig.models import batchnorm, channels
from trainrig.models.batchnorm import EPS, PIXELS, BatchNorm2d, DebiasedBatchNorm
from trainrig.vectorized import Stack

#: Relative to float64. Sums are added up in float64, so that rounding of the results (6e-8) and of
#: some float32 operations on them remains.
BOUND = 2e-6
#: What the networks of the four systems meet: the in-context ResNet with 105 and 28 pixels, the
#: CIFAR ResNet, the wide ResNets and (with fewer images) Inception of DeepOBS.
SHAPES = [
    (288, 4, 27, 27),
    (288, 16, 27, 27),
    (288, 32, 14, 14),
    (288, 64, 14, 14),
    (288, 64, 4, 4),
    (288, 8, 7, 7),
    (288, 32, 2, 2),
    (288, 64, 1, 1),
    (128, 16, 32, 32),
    (128, 32, 16, 16),
    (128, 64, 8, 8),
    (128, 256, 8, 8),
    (2, 32, 149, 149),
]
LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "some channels of channels_last": lambda x: _channels_last(torch.cat([x, x], 1))[
        :, : x.shape[1]
    ],
    "every second pixel": lambda x: torch.stack([x, x], -1).flatten(3)[..., ::2],
    "images and channels exchanged": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
}


def _channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


@pytest.fixture(params=["compiled", "no compiler", "differentiable"])
def way(request, monkeypatch):
    """Compute in C, as where there is no compiler, or as among several processes."""
    if request.param == "compiled":
        assert native.load(channels.SOURCE, "") is not None
    elif request.param == "no compiler":
        monkeypatch.setattr(native, "load", lambda *_: None)
    else:
        monkeypatch.setattr(batchnorm, "_transformed", lambda *_: True)


@pytest.fixture(autouse=True)
def same_threads_after():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def sample(shape, offset=0.0):
    """Values whose images and channels differ in mean and spread, and a gradient."""
    n, channels = shape[:2]
    spread = torch.rand(channels, 1, 1) + 0.5
    x = (
        torch.randn(shape)
        + 0.3 * torch.randn(n, channels, 1, 1)
        + 0.5 * torch.randn(channels, 1, 1)
    )
    return x.mul_(spread).add_(offset), torch.randn(shape)


def in_float64(x, gradient, weight):
    """Mean, variance, and the gradients of weight, bias and input, from the definition."""
    x, gradient = x.double(), gradient.double()
    n = x.numel() // x.shape[1]
    wide = partial(torch.reshape, shape=(-1, 1, 1))
    mean = x.mean(PIXELS)
    centred = x - wide(mean)
    variance = centred.square().mean(PIXELS)
    scale = (variance + EPS).rsqrt()
    normalised = centred * wide(scale)
    dots, sums = (gradient * normalised).sum(PIXELS), gradient.sum(PIXELS)
    dx = gradient - wide(sums / n) - normalised * wide(dots / n)
    return mean, variance, dots, sums, dx.mul_(wide(weight.double() * scale))


def measured(norm, x, gradient):
    """The same five of a module in training."""
    x = x.detach().requires_grad_()
    if isinstance(norm, DebiasedBatchNorm):
        norm.counter.zero_(), norm.hidden.zero_()
        norm(x).backward(gradient)
        mean, variance = norm.average
    else:
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm(x).backward(gradient)
        n = x.numel() // x.shape[1]
        mean, variance = norm.running_mean, norm.running_var * ((n - 1) / n)
    found = mean, variance, norm.weight.grad.clone(), norm.bias.grad.clone(), x.grad
    norm.zero_grad()
    return found


def check(found, expected, bound=BOUND):
    """Compare: the mean relative to itself or the spread, sums to those of a typical channel."""
    mean, variance, dots, sums, dx = expected
    scales = (
        torch.hypot(mean, variance.sqrt()),
        variance,
        dots.square().mean().sqrt(),
        sums.square().mean().sqrt(),
        dx.abs().max(),
    )
    names = "mean", "variance", "gradient of weight", "gradient of bias", "gradient of input"
    for name, value, exact, scale in zip(names, found, expected, scales, strict=True):
        error = ((value.double() - exact).abs() / scale).max().item()
        assert error <= bound, f"{name}: {error:.1e}"


def check_module(norm, x, gradient, threads):
    expected = in_float64(x, gradient, norm.weight.detach())
    for count in threads:
        torch.set_num_threads(count)
        check(measured(norm, x, gradient), expected)
    check(measured(norm, x, _channels_last(gradient)), expected)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sums_agree_with_float64(shape, layout):
    x, gradient = sample(shape)
    norm = DebiasedBatchNorm(shape[1])
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    check_module(norm, LAYOUTS[layout](x), gradient, (1, 2, 8))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", [DebiasedBatchNorm, BatchNorm2d])
def test_sums_in_every_layout(kind, layout, way):
    x, gradient = sample((64, 16, 32, 32))
    check_module(kind(16), LAYOUTS[layout](x), gradient, (1, 2))


def test_the_largest_maps_agree_with_float64():
    """The stem of the in-context ResNet with 105 pixels, where torch's kernel is 4e-4 off."""
    x, gradient = map(_channels_last, sample((288, 64, 53, 53)))
    norm = DebiasedBatchNorm(64)
    some = slice(0, 64, 8)  # channels; all of them would be some gigabytes in float64
    *expected, dx = in_float64(x[:, some], gradient[:, some], norm.weight[some].detach())
    for threads in (1, 2, 8):
        torch.set_num_threads(threads)
        *found, _ = measured(norm, x, gradient)
        check((*(value[some] for value in found), dx), (*expected, dx))


@pytest.mark.parametrize("offset", [3.0, 100.0, 1000.0])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_mean_far_from_zero(layout, offset, way):
    x, gradient = sample((64, 16, 32, 32), offset)
    x = LAYOUTS[layout](x)
    norm = DebiasedBatchNorm(16)
    *expected, dx = in_float64(x, gradient, norm.weight.detach())
    for threads in (1, 2):
        torch.set_num_threads(threads)
        *found, found_dx = measured(norm, x, gradient)
        check((*found, dx), (*expected, dx))
        # Of single values: x itself is known to 6e-8 of the offset, in units of a deviation.
        error = (found_dx.double() - dx).abs().max() / dx.abs().max()
        assert error < BOUND + 6e-8 * offset


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_in_evaluation_agree_with_float64(layout, way):
    x, gradient = sample((64, 16, 32, 32))
    x = LAYOUTS[layout](x).requires_grad_()
    for norm in (DebiasedBatchNorm(16), BatchNorm2d(16)):
        norm(x)
        exact = copy.deepcopy(norm).double().eval()
        y, wide = norm.eval()(x), x.detach().double().requires_grad_()
        found = torch.autograd.grad(y, [norm.weight, norm.bias, x], gradient)
        inputs = [exact.weight, exact.bias, wide]
        expected = torch.autograd.grad(exact(wide.contiguous()), inputs, gradient.double())
        for value, other in zip(found, expected, strict=True):
            assert (value - other).abs().max() <= BOUND * other.square().mean().sqrt()


def test_packed_runs_have_the_sums_of_single_ones():
    members = [nn.Sequential(nn.Conv2d(1, 16, 3), BatchNorm2d(16)) for _ in range(2)]
    images = torch.rand(2, 64, 1, 34, 34)
    Stack(members).train()(images)
    for member, x in zip(members, images, strict=True):
        values = copy.deepcopy(member[0]).double()(x.double())
        assert_close(
            member[1].running_var.double() - 0.9,
            0.1 * values.var(PIXELS),
            rtol=0,
            atol=2e-7,  # the running statistics' own rounding
        )


def test_constant_channels(way):
    x = torch.zeros(64, 3, 8, 8)
    x[:, 1] = 100.1
    x[:, 2] = torch.randn(64, 8, 8)
    for layout in LAYOUTS.values():
        norm = DebiasedBatchNorm(3)
        y = norm(layout(x))
        assert y.isfinite().all()
        assert_close(norm.average[0, :2], torch.tensor([0.0, 100.1]))
        assert norm.average[1, 0] == 0
        assert 0 <= norm.average[1, 1] < 1e-9
        assert y[:, :2].abs().max() < 0.01  # rounding of 100.1, over the root of eps


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_and_second_derivatives(layout, training):
    """Finite differences in float64 of the operator that float32 uses on a CPU."""
    x = LAYOUTS[layout](torch.randn(3, 2, 2, 3, dtype=torch.float64)).requires_grad_()
    weight, bias = (torch.rand(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    statistics = (None, None) if training else (torch.randn(2), torch.rand(2) + 0.5)

    def call(x, weight, bias):
        return batchnorm._normalise(x, weight, bias, *statistics, EPS)[0]

    assert torch.autograd.gradcheck(call, (x, weight, bias))
    assert torch.autograd.gradgradcheck(call, (x, weight, bias))


@pytest.mark.parametrize("training", [True, False])
def test_hessian_vector_products_of_a_channels_last_network(training):
    net = nn.Sequential(nn.Conv2d(2, 4, 3), BatchNorm2d(4), nn.Tanh(), nn.Conv2d(4, 3, 3))
    x = _channels_last(torch.randn(6, 2, 9, 9))
    products = []
    for each, images in ((net, x), (copy.deepcopy(net).double(), x.double())):
        each.to(memory_format=torch.channels_last).train(training)
        parameters = list(each.parameters())
        gradient = torch.autograd.grad(each(images).pow(4).mean(), parameters, create_graph=True)
        products.append(torch.autograd.grad(sum(g.sum() for g in gradient), parameters))
    for value, exact in zip(*products, strict=True):
        assert (value - exact).norm() <= 1e-5 * exact.norm() + 1e-6  # a bias before a norm: 0


def test_transforms_that_differentiate():
    x = _channels_last(torch.randn(4, 3, 5, 5))
    weight, bias = torch.rand(3) + 0.5, torch.rand(3)

    def loss(x):
        return batchnorm.batch_norm(x, weight, bias, EPS)[0].pow(3).sum()

    x.requires_grad_()
    (expected,) = torch.autograd.grad(loss(x), x)
    assert_close(torch.func.grad(loss)(x.detach()), expected)
    assert_close(torch.func.vmap(torch.func.grad(loss))(x.detach()[None])[0], expected)


def test_the_operators_obey_the_rules_of_custom_operators():
    x, weight, bias = torch.randn(6, 3, 4, 4), torch.rand(3), torch.rand(3)
    for layout in LAYOUTS.values():
        for statistics in ((None, None), (torch.rand(3), torch.rand(3))):
            arguments = (layout(x).requires_grad_(), weight, bias, *statistics, EPS)
            torch.library.opcheck(batchnorm._normalise, arguments)


def test_half_precision_keeps_the_type_and_the_sums():
    x = _channels_last(torch.randn(64, 8, 16, 16).bfloat16())
    norm = DebiasedBatchNorm(8)
    y = norm(x)
    assert y.dtype == torch.bfloat16
    assert_close(norm.average[1].double(), x.double().var(PIXELS, correction=0), rtol=BOUND, atol=0)


def channel_counts():
    """Rows of all widths: whole cache lines, parts of one, and neither."""
    return [1, 3, 4, 5, 8, 16, 24, 40, 63, 64, 65, 100, 272]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_compiled_functions_equal_those_by_operators(layout, training, monkeypatch):
    for count in channel_counts():
        for n, side in ((7, 9), (50, 12), (3, 37)):
            monkeypatch.setattr(channels, "SMALL", 0)
            x, gradient = (LAYOUTS[layout](torch.randn(n, count, side, side)) for _ in range(2))
            values = torch.rand(4, count) + 0.5
            torch.set_num_threads(3)
            compiled = both_functions(x, gradient, values, training)
            torch.set_num_threads(1)
            for value, same in zip(
                compiled, both_functions(x, gradient, values, training), strict=True
            ):
                assert torch.equal(value, same)
            monkeypatch.setattr(channels, "SMALL", math.inf)
            by_operators = both_functions(x, gradient, values, training)
            for value, other in zip(compiled, by_operators, strict=True):
                assert (value.stride(), value.dtype) == (other.stride(), other.dtype)
                assert_close(value, other, rtol=1e-5, atol=1e-5)


def both_functions(x, gradient, values, training):
    weight, bias, *given = values
    statistics = None if training else tuple(given)
    y, *found = channels.normalise(x, weight, bias, EPS, statistics)
    return y, *found, *channels.differentiate(gradient, x, weight, tuple(found), EPS, training)


def test_one_value_per_channel_is_refused():
    with pytest.raises(ValueError, match=r"\(1, 3, 1, 1\) has one value per channel"):
        BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))


def test_torchs_own_function_is_never_asked_for_an_eps_of_zero(monkeypatch):
    """torch 2.11 refuses it, where the compiled passes are not to be had."""
    original = torch.nn.functional.batch_norm

    def strict(*arguments, **options):
        assert options.get("eps", 1.0) > 0
        return original(*arguments, **options)

    monkeypatch.setattr(channels.F, "batch_norm", strict)
    x = torch.randn(4, 3, 5, 5)
    mean, scale, shift = torch.randn(3).double(), torch.rand(3).double(), torch.randn(3).double()
    found = channels._scaled(x, mean, scale, shift)
    a, b, c = (values.float().view(1, 3, 1, 1) for values in (mean, scale, shift))
    # three roundings of terms up to 10 in size
    assert_close(found, b * (x - a) + c, rtol=0.0, atol=3 * 2.0**-24 * 10)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_the_version_for_another_processor_gives_the_same_bits(tmp_path, monkeypatch, layout):
    whole = native.load(channels.SOURCE, "")
    command = [native.find_compiler(), *native.FLAGS, "-DWIDEST="]
    subprocess.run([*command, "-o", tmp_path / "plain.so", channels.SOURCE], check=True)
    plain = ctypes.CDLL(str(tmp_path / "plain.so"))
    x, gradient = (LAYOUTS[layout](torch.randn(32, 20, 15, 15)) for _ in range(2))
    weight, bias = torch.rand(20) + 0.5, torch.randn(20)
    found = []
    for library in (whole, plain):
        monkeypatch.setattr(channels, "compiled", lambda library=library: library)
        y, mean, variance = channels.normalise(x, weight, bias, EPS)
        gradients = channels.differentiate(gradient, x, weight, (mean, variance), EPS, True)
        found.append((y, mean, variance, *gradients))
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
