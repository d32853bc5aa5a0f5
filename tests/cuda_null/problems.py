"""Run on the null GPU: takes training steps of DeepOBS problems, prints what the last one did.

python problems.py FOLDER [PROBLEM ...]
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import torch
from null_gpu import Tally

from deepobs.pytorch import config, testproblems
from deepobs.pytorch.datasets.generated import write_generated_data
from deepobs.pytorch.testproblems import TESTPROBLEMS
from trainrig.device import set_precision
from trainrig.seeding import make_deterministic

LARGE = ("vgg", "inception", "wrn", "3c3d", "char_rnn", "allcnnc")
WARM_UP = 2

library = ctypes.CDLL(None)
library.null_gpu_tally.restype = ctypes.c_char_p


def step_of(name: str) -> dict[str, float]:
    """Return what a training step of a problem does, after some; then evaluate a batch."""
    problem = getattr(testproblems, name)(2 if any(part in name for part in LARGE) else 8)
    problem.set_up()
    optimizer = torch.optim.SGD(problem.net.parameters(), lr=0.01, momentum=0.9)
    problem.train_init_op()
    for _ in range(WARM_UP + 1):
        library.null_gpu_forget()
        optimizer.zero_grad()
        loss, _ = problem.get_batch_loss_and_accuracy()
        loss.backward()
        optimizer.step()
        tally = Tally()
        tally.add(json.loads(library.null_gpu_tally()))
    assert {p.grad.device.type for p in problem.net.parameters()} == {"cuda"}
    problem.test_init_op()
    problem.get_batch_loss_and_accuracy()
    refused = tally.refusals + json.loads(library.null_gpu_tally())["refusals"]
    assert not refused, refused
    copies = sum(n for call, n in tally.calls.items() if call.startswith(("copy H2D", "copy D2H")))
    return {"launches": tally.launches, "waits": tally.waits, "copies": copies}


def main(folder: str, *names: str) -> None:
    make_deterministic()
    set_precision("fp32")
    torch.set_num_threads(1)
    config.set_default_device("cuda")
    write_generated_data(Path(folder), examples=64)
    config.set_data_dir(folder)
    print(json.dumps({name: step_of(name) for name in names or TESTPROBLEMS}))


if __name__ == "__main__":
    main(*sys.argv[1:])
