"""C sources compiled at their first use and kept in the cache.

A library is known by its source and by what compiles it, so that another version of either makes
another file. It is built under a temporary name and renamed: processes that start at once disturb
each other in nothing.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
from pathlib import Path

from trainrig.files import cache_dir, replacing, scratch_folder

#: Results must not depend on the order in which a compiler would like to add up (no -ffast-math),
#: nor on whether the processor multiplies and adds with one rounding (no contraction).
FLAGS = (
    *("-std=gnu11", "-O3", "-fno-math-errno", "-ffp-contract=off"),
    *("-fopenmp", "-fPIC", "-shared", "-Wno-psabi"),
)
COMPILERS = ("cc", "gcc", "clang")

log = logging.getLogger(__name__)


@functools.cache
def load(source: Path, instead: str) -> ctypes.CDLL | None:
    """Return the compiled library of a C source, or None where it cannot be built here.

    The first failure is logged, with ``instead``: what is done without.
    """
    try:
        return _load(source)
    except (OSError, subprocess.SubprocessError) as error:
        output = getattr(error, "stderr", None) or str(error)
        reason = output.strip().splitlines()[0] if output.strip() else type(error).__name__
        log.warning("%s: cannot be compiled (%s); %s", source.name, reason, instead)
        return None


def _load(source: Path) -> ctypes.CDLL:
    compiler = find_compiler()
    if compiler is None:
        raise FileNotFoundError(f"no C compiler: none of {', '.join(COMPILERS)} is on the PATH")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    parts = (source.read_text("utf-8"), " ".join(FLAGS), version.stdout, platform.machine())
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    path = cache_dir() / "native" / f"{source.stem}-{digest}.so"
    try:
        if not path.exists():
            with replacing(path) as temporary:
                _compile(compiler, source, temporary)
        if path.stat().st_uid != os.getuid():  # what another user put there is not executed
            raise PermissionError(f"{path} belongs to another user")
        return ctypes.CDLL(str(path))
    except OSError:  # no cache to use: for this process alone
        with scratch_folder(name="native") as folder:
            _compile(compiler, source, folder / path.name)
            return ctypes.CDLL(str(folder / path.name))


def find_compiler() -> str | None:
    """Return the path of the C compiler: $CC, else the first of ``COMPILERS``, or None."""
    for name in (os.environ.get("CC", ""), *COMPILERS):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


def _compile(compiler: str, source: Path, target: Path) -> None:
    command = [compiler, *FLAGS, "-o", str(target), str(source)]
    subprocess.run(command, capture_output=True, text=True, check=True)
