"""Optimizer quality from the command line: ``trainrig cifar``."""

from __future__ import annotations

#: Command → what it does; each is a module here with ``main(argv)``.
COMMANDS = {
    "train": "ResNet-8 with one optimizer",
    "sweep": "optimizers over learning rates and seeds",
    "compare": "what differs between the solutions of several runs",
}
