"""Measure what docs/deepobs.md claims: first losses, runner overhead, data pipelines.

Times are CPU seconds of this process on one thread, so that a busy machine does not blur them.

Examples:
    python analysis/measure_deepobs.py first-losses --data_dir DATA
    python analysis/measure_deepobs.py overhead --data_dir DATA
    python analysis/measure_deepobs.py pipelines --data_dir DATA
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainrig.cli import Parser, entry

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


def first_losses(names: list[str], batches: int | None, seeds: int) -> None:
    """Print each problem's test loss before training beside the published mean and deviation."""
    import numpy as np

    from deepobs.analyzer.baselines import load_baselines

    generator = np.random.default_rng(0)
    for name in names or FIRST_LOSSES:
        values = np.array([first_loss(name, seed, batches) for seed in range(42, 42 + seeds)])
        mean = values.mean()
        # All three optimizers start from the same initial values.
        published, spread = (c[0] for c in load_baselines().band(name, "SGD", "test_losses"))
        means = generator.choice(values, (DRAWS, PUBLISHED_SEEDS)).mean(1)
        as_far = (abs(means - mean) >= abs(published - mean)).mean()
        print(
            f"{name:18} {mean:9.4f} +- {values.std():.4f} ({values.min():.4f} to "
            f"{values.max():.4f})  published {published:9.4f} +- {spread:.4f}  "
            f"{100 * (mean / published - 1):+.2f} %  ({seeds} seeds; of means of "
            f"{PUBLISHED_SEEDS} of them {100 * as_far:.2g} % lie as far from ours)",
            flush=True,
        )


def first_loss(name: str, seed: int, batches: int | None) -> float:
    """Return a problem's test loss before training, and show it as progress."""
    import torch

    from deepobs.pytorch import config, testproblems
    from deepobs.pytorch.runners.session import evaluate

    torch.manual_seed(seed)
    problem = getattr(testproblems, name)(
        config.get_testproblem_default_settings()[name]["batch_size"]
    )
    problem.set_up()
    if batches is not None:
        problem.data.test.n_batches = min(batches, problem.data.test.n_batches)
    value = evaluate(problem, "test")[0]
    print(f"{name}, seed {seed}: {value:.5f}", file=sys.stderr, flush=True)
    return value


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the median CPU time of a call."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def overhead(names: list[str], steps: int, repeats: int) -> None:
    """Compare the runner's training epoch with a bare loop over the same batches and model."""
    import torch

    from deepobs.pytorch import testproblems
    from deepobs.pytorch.runners import StandardRunner
    from deepobs.pytorch.runners.session import SaveClock
    from deepobs.pytorch.runners.sinks import Sinks

    for name in names or ("mnist_mlp", "fmnist_2c2d"):
        runner = StandardRunner(torch.optim.SGD, {"lr": {"type": float}})
        settings = runner.make_settings(name, {"lr": 0.01}, num_epochs=1)
        session = runner.make_session(settings, lambda line: None, Sinks())
        session.problem.data.train.n_batches = steps
        problem = getattr(testproblems, name)(settings.batch_size)
        problem.set_up()
        problem.data.train.n_batches = steps
        net, loss_fn = problem.net, torch.nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)

        def bare(problem=problem, net=net, loss_fn=loss_fn, optimizer=optimizer) -> None:  # noqa: ANN001
            net.train()
            for step, (x, y) in enumerate(problem.data.train):
                optimizer.zero_grad()
                loss = loss_fn(net(x), y)
                loss.backward()
                optimizer.step()
                if step % 10 == 0:
                    loss.item()

        def ours(session=session) -> None:  # noqa: ANN001
            session.train_epoch(SaveClock(None, 60.0))

        bare(), ours()
        pairs = [(seconds(bare, 1), seconds(ours, 1)) for _ in range(repeats)]
        ratios = [mine / theirs for theirs, mine in pairs]
        print(
            f"{name}: bare {statistics.median(p[0] for p in pairs):.3f} s, runner "
            f"{statistics.median(p[1] for p in pairs):.3f} s per {steps} steps; "
            f"overhead {100 * (statistics.median(ratios) - 1):+.1f} % (median of {repeats})",
            flush=True,
        )


def pipelines(repeats: int, batches: int) -> None:
    """Compare our loaders with torchvision transforms behind a DataLoader, on one core."""
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from deepobs.pytorch import datasets

    grey = transforms.ToTensor()
    colour = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=2),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=63 / 255, saturation=0.5, contrast=0.8),
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ]
    )

    class Images(Dataset):
        """Raw images behind torchvision transforms, as torchvision's own data sets do it."""

        def __init__(self, raw: Any, transform: Any) -> None:
            self.raw, self.transform = raw, transform

        def __len__(self) -> int:
            return len(self.raw.labels)

        def __getitem__(self, i: int) -> tuple[Any, int]:
            pixels = self.raw.images[i].transpose(1, 2, 0)
            image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
            return self.transform(image), int(self.raw.labels[i])

    def run_through(loader: Any) -> None:
        for i, _ in enumerate(loader):
            if i + 1 == batches:
                return

    for name, transform in (("mnist", grey), ("cifar10", colour)):
        data = getattr(datasets, name)(128)
        other = DataLoader(Images(data.read("train"), transform), 128, shuffle=True, drop_last=True)
        run_through(data.train)
        fast = seconds(lambda data=data: run_through(data.train), repeats)
        slow = seconds(lambda other=other: run_through(other), 1)
        print(
            f"{name}: ours {1e3 * fast / batches:.2f} ms, DataLoader {1e3 * slow / batches:.2f} ms "
            f"per batch of 128: {slow / fast:.1f} x (torch {torch.__version__})",
            flush=True,
        )


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__)
    parser.add_argument("what", choices=("first-losses", "overhead", "pipelines"))
    parser.add_argument("names", nargs="*", help="test problems")
    parser.add_argument("--data_dir", type=Path, help="folder of data sets (as run_deepobs.py)")
    parser.add_argument("--batches", type=int, help="fewer batches")
    parser.add_argument("--seeds", type=int, default=3, help="first-losses: seeds (3)")
    parser.add_argument("--repeats", type=int, default=5, help="timings of each (5)")
    return parser.parse_args(argv)


@entry
def main(argv: list[str] | None = None) -> int:
    """Measure one thing and print it."""
    args = parse_args(argv)
    import torch

    from deepobs.pytorch import config

    torch.set_num_threads(1)
    if args.data_dir is not None:
        config.set_data_dir(args.data_dir)
    if args.what == "first-losses":
        first_losses(args.names, args.batches, args.seeds)
    elif args.what == "overhead":
        overhead(args.names, args.batches or 60, args.repeats)
    else:
        pipelines(args.repeats, args.batches or 40)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
