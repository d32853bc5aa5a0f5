"""A CUDA device that computes nothing, for tests on machines without a GPU.

torch's CUDA build runs on a library that stands in for the CUDA runtime, the driver, cuBLAS, cuFFT,
cuDNN and CUPTI: memory of the device is memory of the host, kernels do nothing and are counted.
What it shows: code that breaks on a device, rules of stream capture, and how much a step launches,
waits and copies. What it cannot show: any value, any time.

    python tests/cuda_null/null_gpu.py script.py args...   prints what was counted

The library is compiled for the installed torch at its first use, in seconds, and kept in the cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from trainrig.files import cache_dir

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SOURCES = ("tally.h", "runtime.cpp", "libraries.cpp")
LINKED = (
    "torch_cuda",
    "c10_cuda",
    "torch_cuda_linalg",
    "torch_python",
    "torch_cpu",
    "caffe2_nvrtc",
)
STANDS_IN_FOR = re.compile(r"(__)?cuda[A-Z_]|cublas|cufft|cudnn|cupti|cu[A-Z](?!ile)\w")
#: Calls of the libraries that launch nothing.
PREPARES = re.compile(
    r"(cublas|cudnn)(Lt)?(Set|Get|Create|Destroy|Find|Matmul(Algo|Desc|Pref)|MatrixLayout)"
)
LIMIT_S = 120


def reason_against() -> str | None:
    """Return why there is no null GPU here, None where there is one."""
    if torch.version.cuda is None or not torch.version.cuda.startswith("13."):
        return f"torch {torch.__version__} is no build for CUDA 13, which the null GPU imitates"
    missing = [name for name in ("g++", "gcc", "nm") if shutil.which(name) is None]
    return f"{', '.join(missing)} is not installed" if missing else None


def _symbols(path: Path, *options: str) -> set[str]:
    done = subprocess.run(["nm", *options, str(path)], capture_output=True, text=True, check=True)
    return {line.split()[-1].split("@")[0] for line in done.stdout.splitlines() if line.strip()}


@functools.cache
def library() -> Path:
    """Return the folder of the compiled library."""
    sources = {name: (HERE / "device" / name).read_text("utf-8") for name in SOURCES}
    parts = [torch.__version__, Path(__file__).read_text("utf-8"), *sources.values()]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    folder = cache_dir() / "null_gpu" / digest
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        work = Path(made) / "library"
        work.mkdir()
        _compile(work)
        try:
            os.rename(work, folder)
        except OSError:  # another process was faster
            if not folder.exists():
                raise
    return folder


def _compile(work: Path) -> None:
    """Compile the sources, and a stub for every function that torch links and they lack."""
    major, minor = (int(part) for part in str(torch.version.cuda).split("."))
    cudnn = [int(part) for part in importlib.metadata.version("nvidia-cudnn-cu13").split(".")[:3]]
    versions = {
        "NULL_GPU_CUDA": 1000 * major + 10 * minor,
        "NULL_GPU_CUDNN": 10000 * cudnn[0] + 100 * cudnn[1] + cudnn[2],
    }
    defines = [f"-D{name}={value}" for name, value in versions.items()]
    objects = []
    for name in SOURCES[1:]:
        objects.append(work / f"{name}.o")
        source = HERE / "device" / name
        flags = ["-std=c++17", "-O1", "-fPIC", "-c", *defines, "-o", str(objects[-1])]
        subprocess.run(["g++", *flags, str(source)], check=True)
    folder = Path(torch.__file__).parent / "lib"
    linked = [path for name in LINKED if (path := folder / f"lib{name}.so").exists()]
    needed = set().union(*(_symbols(path, "-D", "--undefined-only") for path in linked))
    written = set().union(*(_symbols(path, "--defined-only") for path in objects))
    stubs = ["void null_gpu_enter(const char*, void*);", "void* null_gpu_library_stream(void);"]
    for name in sorted(n for n in needed - written if STANDS_IN_FOR.match(n)):
        launches = name.startswith(("cublas", "cudnn", "cufft")) and not PREPARES.match(name)
        kind, stream = ("library", "null_gpu_library_stream()") if launches else ("stub", "0")
        stubs.append(f'int {name}(void) {{ null_gpu_enter("{kind} {name}", {stream}); return 0; }}')
    (work / "stubs.c").write_text("\n".join(stubs) + "\n", "utf-8")
    objects.append(work / "stubs.o")
    flags = ["-fPIC", "-fno-builtin", "-w", "-c", "-o", str(objects[-1])]
    subprocess.run(["gcc", *flags, str(work / "stubs.c")], check=True)
    target = work / "libnull_gpu.so"
    subprocess.run(["g++", "-shared", "-o", str(target), *map(str, objects)], check=True)
    (work / "libcuda.so.1").symlink_to(target.name)  # the driver is opened by its file's name


@dataclasses.dataclass
class Tally:
    """What the processes of a run did on the null GPU.

    Attributes:
        calls: name → how often, outside captures.
        refusals: what CUDA would have refused, too.
        graphs: the names of the nodes of each captured graph, in order.
        replays_by_stream: how often each stream replayed a graph.
        marks: (launches, waits, copies between host and device, replays) so far, after each step.
        peak_bytes: device → most memory at a time.
    """

    calls: Counter[str] = dataclasses.field(default_factory=Counter)
    refusals: list[str] = dataclasses.field(default_factory=list)
    graphs: list[list[str]] = dataclasses.field(default_factory=list)
    replays_by_stream: list[int] = dataclasses.field(default_factory=list)
    marks: list[list[int]] = dataclasses.field(default_factory=list)
    peak_bytes: Counter[int] = dataclasses.field(default_factory=Counter)

    def add(self, tree: dict[str, Any]) -> None:
        """Take over what one process left; the marks of the busiest one stay."""
        self.calls.update(tree["calls"])
        self.refusals += tree["refusals"]
        self.graphs += tree["graphs"]
        self.replays_by_stream += tree["replays_by_stream"]
        self.marks = max(self.marks, tree["marks"], key=len)
        for device, size in tree["peak_bytes"].items():
            self.peak_bytes[int(device)] = max(self.peak_bytes[int(device)], size)

    @property
    def launches(self) -> int:
        """Kernels launched by the host; the nodes of a graph are none of them."""
        kinds = ("kernel ", "library ")
        single = sum(n for name, n in self.calls.items() if name.startswith(kinds))
        return single + self.calls["fill"] + self.calls["copy D2D"]

    @property
    def waits(self) -> int:
        """How often the host waited for the device."""
        return sum(n for name, n in self.calls.items() if name.startswith("wait "))

    @property
    def nodes(self) -> int:
        """Nodes of the largest graph, 0 without one."""
        return max(map(len, self.graphs), default=0)

    def per_step(self) -> dict[str, float]:
        """Return the median step's launches, waits and copies, and the nodes of its graph."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        steps = [[b - a for a, b in zip(*pair, strict=True)] for pair in pairs]
        steps = steps[len(steps) // 4 :]  # the first ones warm up
        medians = [statistics.median(column) for column in zip(*steps, strict=True)]
        names = ("launches", "waits", "copies", "replays")
        return {**dict(zip(names, medians, strict=True)), "nodes": self.nodes}


@dataclasses.dataclass
class Result:
    """A run that ended: exit status (negative: a signal; None: too late), output, and its tally."""

    status: int | None
    output: str
    tally: Tally

    def said(self) -> str:
        """Return the end of the output, for the message of an assertion."""
        return f"exit status {self.status}\n{self.output[-3000:]}"


def environment(tally: Path, *, devices: int = 1, mib: int | None = None) -> dict[str, str]:
    """Return the environment of a process on the null GPU."""
    folder = library()
    before = {"LD_PRELOAD": folder / "libnull_gpu.so", "LD_LIBRARY_PATH": folder}
    before |= {"PYTHONPATH": HERE / "hook"}
    env = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
    for name, value in before.items():
        env[name] = f"{value}:{env[name]}" if env.get(name) else str(value)
    env |= {"NULL_GPU_TALLY": str(tally), "NULL_GPU_DEVICES": str(devices)}
    env |= {"NULL_GPU_MIB": str(mib)} if mib is not None else {}
    return env | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def run(
    argv: Sequence[str],
    *,
    devices: int = 1,
    mib: int | None = None,
    limit_s: float = LIMIT_S,
    stop: tuple[Callable[[], bool], signal.Signals] | None = None,
) -> Result:
    """Run a Python script, or ``-c code``, of this checkout on the null GPU.

    Args:
        argv: the script and its arguments.
        devices: number of GPUs.
        mib: memory of each in MiB.
        limit_s: after this long it is killed.
        stop: condition and signal: sent once, when the condition first holds.
    """
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        env = environment(Path(folder), devices=devices, mib=mib)
        child = subprocess.Popen(
            [sys.executable, *argv], cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT
        )
        began, late, sent = time.monotonic(), False, stop is None
        while child.poll() is None:
            if not sent and stop is not None and stop[0]():
                child.send_signal(stop[1])
                sent = True
            if time.monotonic() - began > limit_s:
                child.kill()
                late = True
            time.sleep(0.005 if not sent else 0.05)
        output.seek(0)
        tally = Tally()
        for path in sorted(Path(folder).glob("*.json")):
            tally.add(json.loads(path.read_text("utf-8")))
        return Result(None if late else child.returncode, output.read(), tally)


def make_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script", nargs=argparse.REMAINDER, help="a script and its arguments")
    return parser


def main() -> int:
    """Run a script, print what it said and what was counted."""
    script = make_parser().parse_args().script
    if (reason := reason_against()) is not None:
        print(f"no null GPU: {reason}")
        return 2
    result = run(script, limit_s=3600)
    print(result.output)
    tally = result.tally
    print(json.dumps(tally.per_step() if len(tally.marks) > 4 else {}, indent=1))
    print(f"{tally.launches} launches, {tally.waits} waits, graphs of {[*map(len, tally.graphs)]}")
    print(f"refused: {tally.refusals[:5]}; peak bytes: {dict(tally.peak_bytes)}")
    return result.status if result.status is not None else 1


if __name__ == "__main__":
    sys.exit(main())
