"""Gradients, adjoints and signs that the recorded arrays cannot show."""

from __future__ import annotations

import pytest
import torch

from ptycho_torch.network.assembly import (
    Stitcher,
    extract_group,
    fitting_canvas,
    merge_group,
    stitch,
)
from ptycho_torch.physics import forward as physics


def complex_randn(*shape, dtype=torch.complex128):
    return torch.randn(*shape, dtype=dtype)


def test_forward_chain_matches_finite_differences():
    obj, probe = complex_randn(14, 14), complex_randn(2, 8, 8)
    coords = torch.tensor([[6.3, 7.1], [8.2, 5.6]], dtype=torch.float64)

    def loss(obj, probe, coords):
        patches = physics.extract_patches(obj, coords, 8)
        rate = physics.diffract_intensity(physics.illuminate(patches[:, None], probe))
        return physics.poisson_nll(rate, torch.full_like(rate, 0.7)).mean()

    inputs = [t.requires_grad_() for t in (obj, probe, coords)]
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-6, atol=1e-6)


def test_reading_and_adding_windows_are_adjoint():
    image, windows = complex_randn(1, 12, 15), complex_randn(3, 6, 5)
    start = torch.tensor([[-2.3, 4.1], [3.6, 11.7], [8.2, -3.4]], dtype=torch.float64)
    read = physics.sample_windows(image, start, (6, 5))
    added = physics.add_windows(torch.zeros_like(image), windows[None], start[None])
    left, right = (read * windows.conj()).sum(), (image * added.conj()).sum()
    torch.testing.assert_close(left, right)


def test_translation_moves_content_forward():
    image = torch.zeros(1, 9, 9, dtype=torch.float64)
    image[0, 3, 2] = 1
    moved = physics.translate(image, torch.tensor([[4.0, 1.0]], dtype=torch.float64))
    assert moved[0, 4, 6] == 1


def test_energy_is_conserved_and_modes_add_in_intensity():
    waves = complex_randn(2, 3, 16, 16)
    amplitude = physics.diffract(waves)
    torch.testing.assert_close(amplitude.square().sum((1, 2)), waves.abs().square().sum((1, 2, 3)))
    alone = sum(physics.diffract(waves[:, m : m + 1]).square() for m in range(3))
    torch.testing.assert_close(amplitude.square(), alone)


def test_a_probe_of_lower_rank_is_refused():
    with pytest.raises(ValueError, match="modes, N, N"):
        physics.illuminate(complex_randn(2, 1, 8, 8), complex_randn(8, 8))


def group_of_true_patches(groups=3, size=16, count=4):
    obj = torch.polar(torch.rand(60, 60).double() + 0.5, torch.randn(60, 60).double())
    centres = 30 + 4 * torch.rand(groups, 1, 2, dtype=torch.float64)
    relative = 3 * torch.randn(groups, count, 2, dtype=torch.float64)
    relative = torch.round(relative - relative.mean(1, keepdim=True))
    centres = torch.round(centres)
    patches = physics.extract_patches(obj, (centres - relative).reshape(-1, 2), size)
    return obj, centres, relative, patches.view(groups, count, size, size)


def test_merging_puts_patches_where_they_were_taken():
    """An asymmetric pixel: a sign slip would mirror the group."""
    obj, centres, relative, patches = group_of_true_patches()
    side = fitting_canvas(16, relative)
    merged = merge_group(patches, relative, side)
    want = physics.extract_patches(obj, centres[:, 0], side)
    support = merged.abs() > 0
    error = ((merged - want).abs() / want.abs())[support]
    assert support.sum() > 3 * 64
    assert error.max() < 2e-3  # 1/(1 + epsilon) of the normalisation
    again = extract_group(merged, relative, 16)
    inner = (slice(None), slice(None), slice(4, 12), slice(4, 12))
    torch.testing.assert_close(again[inner], patches[inner], rtol=2e-3, atol=2e-3)


def test_merging_does_not_depend_on_the_batch():
    _, _, relative, patches = group_of_true_patches(groups=20)
    together = merge_group(patches, relative, 40)
    alone = torch.cat([merge_group(patches[i : i + 1], relative[i : i + 1], 40) for i in range(20)])
    assert torch.equal(together, alone)


def test_streaming_stitches_what_one_call_stitches():
    patches, coords = complex_randn(12, 32, 32), 40 + 9 * torch.rand(12, 2, dtype=torch.float64)
    whole = stitch(patches, coords, 20)
    mean, side = coords.mean(0), whole.shape[0]
    stream = Stitcher(tuple(mean.tolist()), (side, side), (side / 2,) * 2, dtype=whole.dtype)
    for start in range(0, 12, 5):
        stream.add(patches[start : start + 5, 6:26, 6:26], coords[start : start + 5])
    torch.testing.assert_close(stream.result(), whole)
