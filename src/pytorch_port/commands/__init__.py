"""In-context learning from the command line: ``trainrig icl``."""

from __future__ import annotations

#: Command → what it does; each is a module here with ``main(argv)``.
COMMANDS = {
    "sweep": "the weight-decay sweep of Figure 3: train, evaluate, draw",
    "train": "one run",
    "figure3": "draw Figure 3 from its tables, with published curves",
    "figure3a": "accuracy against step by class count (Figures 3a and 3b)",
    "reproduce": "the published experiments, ours over theirs",
    "regression": "two short runs against archived bounds",
}

#: For ``trainrig verify``: the module with ``run(golden, ...)``, and what it compares.
PARITY = ("pytorch_port.parity", "in-context learning: models, loss, metrics, sequences")
#: Flags of this proof alone.
PARITY_FLAGS = {
    "--device": {"default": "cpu", "help": "cpu, cuda or cuda:N (cpu)"},
    "--precision": {
        "choices": ("fp32", "tf32"),
        "default": "fp32",
        "help": "of float32 products on CUDA (fp32)",
    },
    "--sequences": {
        "type": int,
        "default": 50_000,
        "help": "drawn by the vectorised sampler per case of the statistics (50000)",
    },
}
