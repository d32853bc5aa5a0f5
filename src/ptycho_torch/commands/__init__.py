"""Ptychography from the command line: ``trainrig ptycho``."""

from __future__ import annotations

#: Command → what it does; each is a module here with ``main(argv)``.
COMMANDS = {
    "simulate": "a scan with a known object",
    "train": "the network on a scan, without labels",
    "infer": "an object from a scan: network, iterations, or both",
    "evaluate": "a reconstruction against the truth, or half against half",
    "ensemble": "several seeds on one scan; mean and spread",
    "convert": "other layouts into the canonical NPZ",
}

#: For ``trainrig verify``: the module with ``run(golden)``, and what it compares.
PARITY = ("ptycho_torch.parity", "ptychography: physics, data path, network, configuration")
