"""Seeds and random states: one seed in, every random number in a run determined.

Three generators exist in a run: Python's, NumPy's legacy global one (the reference samples from
both) and torch's. Anything that can be a pure function of (seed, step) is one, through
``derive_seed``; what cannot (dropout) is captured with each checkpoint.
"""

from __future__ import annotations

import hashlib
import os
import random
from typing import Any

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """Hash any mixture of integers and strings into one seed in [0, 2**63).

    >>> derive_seed(1, "holdout", 20) == derive_seed(1, "holdout", 20)
    True
    """
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def set_seed(seed: int) -> None:
    """Seed Python, NumPy and torch (every device) with ``seed`` >= 0."""
    if seed < 0:
        raise ValueError(f"seed: {seed} is negative; give an integer >= 0")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def make_deterministic() -> None:
    """Choose deterministic kernels everywhere; must run before the first CUDA call."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Otherwise every new tensor is filled before it is written, which is for finding bugs.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # unlisted
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def capture_rng() -> dict[str, Any]:
    """Return all random states as tensors and builtins, so that safe loading accepts them."""
    legacy: Any = np.random.get_state()
    kind, keys, position, has_gauss, cached = legacy
    return {
        "python": random.getstate(),
        "numpy": (kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Undo what happened to the generators since ``capture_rng``."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    # A checkpoint may have been loaded onto the device.
    keys = keys.cpu().numpy().astype(np.uint32)
    np.random.set_state((kind, keys, position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
