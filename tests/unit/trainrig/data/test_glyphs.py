"""The procedural glyphs: deterministic, in range, as hard as they should be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from trainrig.data.glyphs import MAX_STROKES, draw_strokes, load_glyphs, render
from trainrig.data.image_bank import nearest_neighbour_accuracy


def render_by_hand(strokes, row, exemplar, size):
    """Draw one glyph with plain loops and 400 points a stroke; ink 0..1, float (size, size)."""
    sigma = strokes.pen[row, exemplar] / np.sqrt(2 * np.log(2))
    centre = (np.arange(size) + 0.5) / size
    ink = np.zeros((size, size))
    for stroke in range(strokes.n_strokes[row]):
        p0, p1, p2, p3 = strokes.points[row, exemplar, stroke]
        t = np.linspace(0, 1, 401)[:, None]
        path = (1 - t) ** 3 * p0 + 3 * t * (1 - t) ** 2 * p1 + 3 * t**2 * (1 - t) * p2 + t**3 * p3
        for here, there in itertools.pairwise(path):
            x, y = (here + there) / 2
            squared = (centre[None, :] - x) ** 2 + (centre[:, None] - y) ** 2
            length = np.linalg.norm(there - here)
            ink += length / (np.sqrt(2 * np.pi) * sigma) * np.exp(-squared / (2 * sigma**2))
    return np.minimum(ink, 1.0)


def test_render_equals_the_slow_twin():
    strokes = draw_strokes(6, 2, seed=3)
    images = render(strokes, 28)
    for row in range(6):
        expected = 255 * (1 - render_by_hand(strokes, row, 1, 28))
        difference = np.abs(images[row, 1].numpy() - expected)
        # Forty points: a ripple of a few grey levels in the longest strokes.
        assert difference.max() < 16
        assert difference.mean() < 0.2


def test_equal_arguments_give_equal_pixels_and_seeds_differ():
    first, again, other = (load_glyphs(8, 3, seed=seed, cache=False) for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert first.sha256 == again.sha256 != other.sha256


def test_first_classes_do_not_depend_on_how_many_follow():
    few, many = (load_glyphs(n, 3, cache=False) for n in (5, 9))
    assert torch.equal(few.images, many.images[:5])


def test_bank_is_marked_synthetic_and_cached(own_cache):
    bank = load_glyphs(4, 2)
    assert bank.synthetic
    assert bank.source == "synthetic"
    assert bank.images.shape == (4, 2, 28, 28)
    assert bank.images.min() == 0
    assert bank.images.max() == 255
    assert len(list(own_cache.glob("glyphs-*"))) == 2
    assert torch.equal(load_glyphs(4, 2).images, bank.images)


def test_strokes_join_end_to_start_with_the_stated_frequency():
    strokes = draw_strokes(3000, 1, seed=0)
    ends, starts = strokes.points[:, 0, :-1, 3], strokes.points[:, 0, 1:, 0]
    joined = np.isclose(ends, starts).all(-1).mean()
    # 12,000 Bernoulli draws: standard error 0.0045.
    assert joined == pytest.approx(0.6, abs=0.02)
    assert sorted(set(strokes.n_strokes.tolist())) == [3, 4, MAX_STROKES]


def test_pixels_of_the_default_seed_are_pinned():
    # Float64 rendering rounded to 8 bits: equal on every machine measured.
    bank = load_glyphs(40, 20, cache=False)
    assert bank.sha256 == "80143abb616035ca077ac90320f28be7b0766a8c7070a8f355529edae71be467"


@pytest.mark.slow
def test_nearest_neighbour_finds_the_class_as_often_as_on_omniglot():
    # Omniglot 0.34; 0.83 would be far too easy. 2,000 queries: standard error 0.011.
    accuracy = nearest_neighbour_accuracy(load_glyphs(cache=False))
    assert 0.35 <= accuracy <= 0.50


@pytest.mark.parametrize("bad", [{"n_classes": 0}, {"n_exemplars": 0}, {"size": 4}, {"seed": -1}])
def test_arguments_out_of_range_are_named(bad):
    (name,) = bad
    with pytest.raises(ValueError, match=rf"glyphs: {name} is {bad[name]}; accepted is"):
        load_glyphs(**bad)
