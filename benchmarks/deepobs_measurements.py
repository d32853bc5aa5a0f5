"""What docs/deepobs.md claims, measured: first losses, the runner's overhead, data pipelines.

Times are CPU seconds of this process on one thread, so that a busy machine does not blur them.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from deepobs.analyzer.baselines import load_baselines
from deepobs.pytorch import config, datasets, testproblems
from deepobs.pytorch.runners import StandardRunner
from deepobs.pytorch.runners.curves import evaluate
from deepobs.pytorch.runners.job import Job
from deepobs.pytorch.testproblems._families import Classification
from trainrig.recorder import Unrecorded
from trainrig.stats import mean_and_sd

logger = logging.getLogger(__name__)

FIRST_LOSSES = (
    "quadratic_deep",
    "mnist_vae",
    "fmnist_vae",
    "fmnist_2c2d",
    "cifar10_3c3d",
    "cifar100_allcnnc",
    "svhn_wrn164",
    "tolstoi_char_rnn",
)
#: Draws of as many of our seeds as were published, to say how often chance gives such a mean.
DRAWS = 100_000
PUBLISHED_SEEDS = 10


def first_losses(names: Sequence[str], batches: int | None, seeds: int) -> Iterator[str]:
    """Yield each problem's test loss before training beside the published mean and deviation.

    Args:
        names: test problems.
        batches: of the test set; all where None.
        seeds: how many, from 42 on.

    Raises:
        ValueError: a problem without a published baseline.
    """
    generator, baselines = np.random.default_rng(0), load_baselines()
    for name in names:
        # All three optimizers start from the same initial values.
        band = baselines.band(name, "SGD", "test_losses")
        if band is None:
            raise ValueError(f"{name}: no published baseline to compare with")
        published, spread = (curve[0] for curve in band)
        values = np.array([first_loss(name, seed, batches) for seed in range(42, 42 + seeds)])
        mean, sd = mean_and_sd(values)
        means = generator.choice(values, (DRAWS, PUBLISHED_SEEDS)).mean(1)
        as_far = (abs(means - mean) >= abs(published - mean)).mean()
        yield (
            f"{name:18} {mean:9.4f} +- {sd:.4f} ({values.min():.4f} to "
            f"{values.max():.4f})  published {published:9.4f} +- {spread:.4f}  "
            f"{100 * (mean / published - 1):+.2f} %  ({seeds} seeds; of means of "
            f"{PUBLISHED_SEEDS} of them {100 * as_far:.2g} % lie as far from ours)"
        )


def first_loss(name: str, seed: int, batches: int | None) -> float:
    """Return a problem's test loss before training, and log it as progress."""
    torch.manual_seed(seed)
    defaults = config.get_testproblem_default_settings()[name]
    problem = getattr(testproblems, name)(defaults["batch_size"])
    problem.set_up()
    if batches is not None:
        problem.data.test.n_batches = min(batches, problem.data.test.n_batches)
    value = evaluate(problem, "test")[0]
    logger.info("%s, seed %d: %.5f", name, seed, value)
    return value


def seconds(function: Callable[[], Any]) -> float:
    """Return the CPU time of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def overhead(names: Sequence[str], steps: int, repeats: int) -> Iterator[str]:
    """Compare the runner's training epoch with a bare loop over the same batches and model.

    Args:
        names: classification problems.
        steps: of an epoch.
        repeats: timings of each, in turn.
    """
    for name in names:
        bare, ours = _bare_epoch(name, steps), _runner_epoch(name, steps)
        bare(), ours()  # not counted
        pairs = [(seconds(bare), seconds(ours)) for _ in range(repeats)]
        medians = [statistics.median(times) for times in zip(*pairs, strict=True)]
        ratio = statistics.median(mine / theirs for theirs, mine in pairs)
        yield (
            f"{name}: bare {medians[0]:.3f} s, runner {medians[1]:.3f} s per {steps} steps; "
            f"overhead {100 * (ratio - 1):+.1f} % (median of {repeats})"
        )


def _bare_epoch(name: str, steps: int) -> Callable[[], None]:
    """Return an epoch of a loop as one would write it by hand."""
    batch_size = config.get_testproblem_default_settings()[name]["batch_size"]
    problem = getattr(testproblems, name)(batch_size)
    if not isinstance(problem, Classification):
        raise ValueError(f"{name}: no classification, which the bare loop is written for")
    problem.set_up()
    problem.data.train.n_batches = steps
    net, loss_fn = problem.net, torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

    def epoch() -> None:
        net.train()
        for step, (x, y) in enumerate(problem.data.train):
            optimizer.zero_grad()
            loss = loss_fn(net(x), y)
            loss.backward()
            optimizer.step()
            if step % 10 == 0:
                loss.item()

    return epoch


def _runner_epoch(name: str, steps: int) -> Callable[[], None]:
    """Return an epoch of the runner."""
    runner = StandardRunner(torch.optim.SGD, {"lr": {"type": float}})
    settings = runner.make_settings(name, {"lr": 0.01}, num_epochs=1)
    problem, optimizer = runner.build(settings)
    job = Job(settings=settings, problem=problem, optimizer=optimizer, folder=None)
    problem.data.train.n_batches = steps
    record = Unrecorded(job.total, per_epoch=steps, finite=False)
    record.restore(problem.net, **job.parts())

    def epoch() -> None:
        for step in job.steps(0):
            job.curves.take(record, step)

    return epoch


class RawImages(Dataset[tuple[Any, int]]):
    """Raw images behind torchvision transforms, as torchvision's own data sets do it."""

    def __init__(self, raw: Any, transform: Callable[[Any], Any]) -> None:
        self.raw, self.transform = raw, transform

    def __len__(self) -> int:
        return len(self.raw.labels)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        from PIL import Image

        pixels = self.raw.images[i].transpose(1, 2, 0)
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return self.transform(image), int(self.raw.labels[i])


def pipelines(repeats: int, batches: int) -> Iterator[str]:
    """Compare our loaders with torchvision transforms behind a DataLoader, on one core.

    Args:
        repeats: timings of ours.
        batches: of 128 images in each.
    """
    from torchvision import transforms

    colour = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=2),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=63 / 255, saturation=0.5, contrast=0.8),
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ]
    )
    for name, transform in (("mnist", transforms.ToTensor()), ("cifar10", colour)):
        data = getattr(datasets, name)(128)
        images = RawImages(data.read("train"), transform)
        other = DataLoader(images, 128, shuffle=True, drop_last=True)
        _run_through(data.train, batches)
        times = [seconds(partial(_run_through, data.train, batches)) for _ in range(repeats)]
        fast = statistics.median(times)
        slow = seconds(partial(_run_through, other, batches))
        yield (
            f"{name}: ours {1e3 * fast / batches:.2f} ms, DataLoader {1e3 * slow / batches:.2f} ms "
            f"per batch of 128: {slow / fast:.1f} x (torch {torch.__version__})"
        )


def _run_through(loader: Iterable[Any], batches: int) -> None:
    for i, _ in enumerate(loader):
        if i + 1 == batches:
            return
