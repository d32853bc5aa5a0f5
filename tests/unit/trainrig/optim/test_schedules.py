"""Learning-rate schedules at the values the reference publishes."""

from __future__ import annotations

import pickle

import pytest

from trainrig.optim.schedules import constant, total_lr, warmup_rsqrt


@pytest.mark.parametrize(
    ("completed", "lr"),
    [(0, 0.0), (1, 7.5e-8), (4000, 3e-4), (20_000, 1.3416e-4), (500_000, 2.683e-5)],
)
def test_warmup_then_inverse_root(completed, lr):
    assert warmup_rsqrt(3e-4, 4000)(completed) == pytest.approx(lr, rel=2e-4)


@pytest.mark.parametrize(("steps", "total"), [(50_000, 6.69), (500_000, 25.0)])
def test_total_lr(steps, total):
    assert total_lr(warmup_rsqrt(3e-4, 4000), steps) == pytest.approx(total, rel=2e-3)


def test_constant_and_pickling():
    assert constant(0.1)(0) == constant(0.1)(10**6) == 0.1
    assert pickle.loads(pickle.dumps(warmup_rsqrt(1.0, 5)))(5) == 1.0


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_impossible_rates_are_refused(bad):
    with pytest.raises(ValueError, match="no learning rate"):
        warmup_rsqrt(bad, 10)
    with pytest.raises(ValueError, match="no learning rate"):
        constant(bad)
    with pytest.raises(ValueError, match="warmup_steps: 0"):
        warmup_rsqrt(0.1, 0)
