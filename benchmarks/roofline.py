"""What this machine can do at most, and what a training step cannot do without.

Two floors bound a step from below: its arithmetic at the measured peak of a large matrix product,
and its least possible traffic at the measured bandwidth of a large copy. A step that stays far
above both is bound by something else: launches, small operators, Python.
"""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from trainrig.device import Precision, return_memory, set_precision


@dataclass(frozen=True, slots=True)
class Work:
    """What one step of one run cannot do without.

    Attributes:
        flops: floating-point operations of matrix products and convolutions (a multiply-add is 2).
        bytes: to and from memory, see ``count_work``.
    """

    flops: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Peaks:
    """Measured limits: operations/s by precision, bytes/s of a copy (read + write)."""

    flops: dict[Precision, float]
    bytes_per_s: float


@dataclass(slots=True)
class PeakMemory:
    """Filled when the context of ``peak_memory`` ends; None where the system does not tell."""

    bytes: int | None = None


def count_work(
    forward: Callable[[], Tensor], parameters: Iterable[Tensor], *, state_per_parameter: int = 2
) -> Work:
    """Count the operations of a forward and backward pass, and the bytes that a step must move.

    The bytes: every tensor that the forward pass keeps for the backward pass written once and read
    once; every parameter read in both passes; its gradient written and read; parameter and
    optimizer state read and written by the update. What fits the caches need not go to memory, so
    for a small model this is a generous floor.

    Args:
        forward: returns the scalar loss.
        parameters: those trained.
        state_per_parameter: numbers that the optimizer keeps for each (Adam 2, momentum 1).
    """
    parameters = list(parameters)
    own = {p.untyped_storage().data_ptr() for p in parameters}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = forward()
        loss.backward()
    size = sum(p.numel() * p.element_size() for p in parameters)
    for parameter in parameters:
        parameter.grad = None
    passes = 2 + 2 + 2 * (1 + state_per_parameter)
    return Work(float(counter.get_total_flops()), float(2 * sum(kept.values()) + passes * size))


def measure_peaks(device: torch.device) -> Peaks:
    """Measure matrix products in each precision and a copy, the best of a few tries."""
    cuda = device.type == "cuda"
    size, copied = (8192, 2**30) if cuda else (512, 2**27)
    precisions: tuple[Precision, ...] = ("fp32", "tf32", "bf16") if cuda else ("fp32", "bf16")
    flops: dict[Precision, float] = {}
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    for precision in precisions:
        set_precision(precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = torch.randn(2, size, size, device=device, dtype=dtype).unbind(0)
        flops[precision] = 2 * size**3 / _best(partial(torch.matmul, a, b), device)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed
    source = torch.zeros(copied // 4, device=device)
    target = torch.zeros_like(source)
    return Peaks(flops, 2 * copied / _best(lambda: target.copy_(source), device))


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Return the shortest time of six tries, or of those that a second allows."""
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter  # as loops are timed
    times: list[float] = []
    while len(times) < 6 and sum(times) < 1.0:
        started = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(clock() - started)
    return min(times)


@contextlib.contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Measure the peak inside: allocated on CUDA, else this process's resident memory (Linux)."""
    peak = PeakMemory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield peak
        peak.bytes = torch.cuda.max_memory_allocated(device)
        return
    return_memory()  # or what was measured before would hide what is measured now
    restarted = False
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # restarts VmHWM, the high-water mark
        restarted = True
    yield peak
    if restarted:
        status = Path("/proc/self/status").read_text()
        lines = [line for line in status.splitlines() if line.startswith("VmHWM")]
        peak.bytes = 1024 * int(lines[0].split()[1]) if lines else None


def describe_hardware(device: torch.device) -> dict[str, Any]:
    """Return processor, cores, instruction sets that matter here, and the GPU if one is used."""
    facts: dict[str, Any] = {"cores": os.cpu_count(), "cpu": platform.processor() or "unknown"}
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        pairs = dict(line.split(":", 1) for line in lines if ":" in line)
        pairs = {key.strip(): value.strip() for key, value in pairs.items()}
        facts["cpu"] = pairs.get("model name", facts["cpu"])
        present = set(pairs.get("flags", "").split())
        known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
        facts["instruction_sets"] = [name for name in known if name in present]
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts["gpu"] = properties.name
        facts["gpu_memory"] = properties.total_memory
        facts["cuda"] = torch.version.cuda
    return facts
