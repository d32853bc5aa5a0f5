"""Where the arithmetic runs, in which precision, on how many threads."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from typing import Literal, get_args

import torch

Precision = Literal["fp32", "tf32", "bf16"]


def choose_device(name: str = "auto") -> torch.device:
    """Return the device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the latter becomes current.

    Streams, graphs and random states that name no device are those of the current one.

    Raises:
        ValueError: an unknown name, or CUDA asked for where torch sees none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name}: not a device; give auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: not supported; give auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ValueError(
            f"--device {name}: torch {torch.__version__} sees {count} CUDA devices; "
            "use --device cpu or --device auto"
        )
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def set_precision(precision: Precision) -> None:
    """Choose how float32 products are computed, in matrix products and convolutions alike.

    ``fp32`` is IEEE single precision; torch's own default lets convolutions on a GPU round to TF32.
    ``bf16`` keeps float32 products exact and is left to ``autocast``. ``describe_precision`` says
    what holds.
    """
    if precision not in get_args(Precision):
        accepted = ", ".join(get_args(Precision))
        raise ValueError(f"--precision {precision}: unknown; accepted: {accepted}")
    tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def describe_precision() -> str:
    """Return how this process computes float32 products: ``ieee``, ``tf32``, or which parts do."""
    parts = {
        "matrix products": torch.backends.cuda.matmul.allow_tf32,
        "convolutions": torch.backends.cudnn.allow_tf32,
    }
    rounded = [name for name, tf32 in parts.items() if tf32]
    return "ieee" if not rounded else "tf32" if len(rounded) == 2 else f"tf32 {rounded[0]}"


def autocast(
    device: torch.device, precision: Precision
) -> contextlib.AbstractContextManager[object]:
    """Return the context for a forward pass: bfloat16 autocast for ``bf16``, else nothing."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


def send(
    tensor: torch.Tensor, device: torch.device | str, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return a tensor on a device, without letting the host wait for a GPU."""
    device = torch.device(device)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # else the copy waits until it was read
    return tensor.to(device, dtype, non_blocking=True)


def reuse_memory() -> bool:
    """Let the C library keep freed memory for this process instead of returning it.

    glibc gives large blocks back at once and takes them again, zeroed page by page, at every step:
    for the maps of a 105-px ResNet (200 MB each) that is half the time of a step. The process
    stays at its peak size instead. Returns whether the library was told (Linux with glibc).
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trim_threshold, mmap_max = -1, -4  # parameters of mallopt(3)
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


def return_memory() -> None:
    """Give freed memory back to the system now, also after ``reuse_memory`` (Linux with glibc)."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def visible_gpus() -> tuple[str, ...]:
    """Return the CUDA devices this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(name for name in named.split(",") if name)
    return tuple(map(str, range(torch.cuda.device_count())))


def core_count() -> int:
    """Return the number of cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def set_threads(count: int | None) -> int:
    """Pin torch to ``count`` threads (default 1: two busy threads on a busy machine collapse)."""
    count = 1 if count is None else count
    if count < 1:
        raise ValueError(f"--threads {count}: must be at least 1")
    torch.set_num_threads(count)
    return count
