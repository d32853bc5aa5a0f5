"""What this machine and installation can do, what is missing, and what will be slow, and why.

Imports neither torch nor anything else that may be broken or absent: torch and torchvision are
asked in a process of their own while the other checks run.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from trainrig import native
from trainrig.data.catalogue import DATA_SETS
from trainrig.data.locations import data_root, put_root
from trainrig.files import cache_dir

PYTHON = ((3, 11), (3, 13))
PROBE_SECONDS = 120
INSTALL = 'pip install -r requirements-torch.txt -e ".[dev]"'
SLOW_ON_CPU = (
    "runs of published size take about a day per core or more; --preset quick takes minutes "
    "(docs/benchmarks.md)"
)
_PROBE = """
import json
found = {}
try:
    import torch
    found.update(torch=torch.__version__, built_for=torch.version.cuda)
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        properties = [torch.cuda.get_device_properties(i) for i in range(count)]
        found["gpus"] = [f"{p.name}, {p.total_memory / 2**30:.0f} GiB" for p in properties]
except Exception as error:
    found["torch_error"] = f"{type(error).__name__}: {error}"
try:
    import torchvision
    found["torchvision"] = torchvision.__version__
except Exception as error:
    found["torchvision_error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at.

    Attributes:
        topic: what.
        state: ``bad`` keeps something from working; ``note`` is slow, or missing but not needed.
        text: what was found, and what to do about it.
    """

    topic: str
    state: Literal["ok", "note", "bad"]
    text: str


def examine(data_dir: Path | None = None) -> list[Finding]:
    """Return all findings about this machine, in a fixed order.

    Args:
        data_dir: folder of data sets, see ``data_root``.
    """
    command = [sys.executable, "-c", _PROBE]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as probe:
        before = [_python(sys.version_info[:2]), _packages(_missing_packages())]
        after = [
            _cores(),
            _memory(Path("/proc/meminfo")),
            _compiler(shutil.which),
            _c_compiler(),
            *_folders(data_root(data_dir)),
            *_data(data_root(data_dir)),
            *_extras(),
        ]
        try:
            answer = probe.communicate(timeout=PROBE_SECONDS)[0]
            found = json.loads(answer)
        except (subprocess.TimeoutExpired, ValueError):
            probe.kill()
            found = {"torch_error": f"importing it crashed or took over {PROBE_SECONDS} s"}
    return [*before, *torch_findings(found, _requirement()), *after]


def torch_findings(found: dict[str, Any], required: str | None) -> list[Finding]:
    """Judge what the probe said.

    Args:
        found: its JSON.
        required: the torch that torchvision's metadata ask for, such as ``torch==2.15.0``.
    """
    if "torch" not in found:
        reason = found.get("torch_error", "no answer")
        return [Finding("torch", "bad", f"cannot be imported ({reason}); {INSTALL}")]
    version, built_for = found["torch"], found.get("built_for")
    build = f"built for CUDA {built_for}" if built_for else "built for the CPU alone"
    findings = [Finding("torch", "ok", f"{version}, {build}")]
    pair = "install both in one call, or torchvision will not match torch: " + INSTALL
    wanted = re.search(r"==\s*([0-9.]+)", required or "")
    if "torchvision" not in found:
        reason = found.get("torchvision_error", "no answer")
        text = f"cannot be imported beside torch {version} ({reason}); {pair}"
        findings.append(Finding("torchvision", "bad", text))
    elif wanted and wanted[1] != version.partition("+")[0]:
        text = f"{found['torchvision']} was made for torch {wanted[1]}, not {version}; {pair}"
        findings.append(Finding("torchvision", "bad", text))
    else:
        findings.append(Finding("torchvision", "ok", f"{found['torchvision']}, matches torch"))
    gpus = found.get("gpus", [])
    if gpus:
        findings.append(Finding("CUDA", "ok", "; ".join(gpus)))
    elif not built_for and Path("/proc/driver/nvidia").exists():
        text = f"a GPU is here, but this torch is {build}; {SLOW_ON_CPU}"
        findings.append(Finding("CUDA", "note", text))
    else:
        findings.append(Finding("CUDA", "note", f"no GPU is visible: {SLOW_ON_CPU}"))
    return findings


def _python(version: tuple[int, int]) -> Finding:
    low, high = (".".join(map(str, one)) for one in PYTHON)
    named = ".".join(map(str, version))
    if PYTHON[0] <= version <= PYTHON[1]:
        return Finding("Python", "ok", f"{named} in {sys.prefix}")
    return Finding("Python", "bad", f"{named}; {low} to {high} are supported")


def _requirements() -> list[tuple[str, str]]:
    """Return (distribution, extra) of everything that the project's metadata name."""
    try:
        lines = metadata.requires("trainrig") or []
    except metadata.PackageNotFoundError:
        return []
    found = []
    for line in lines:
        name = re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"](\w+)['\"]", line)
        found.append((name, extra[1] if extra else ""))
    return found


def _is_installed(distribution: str) -> bool:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return bool(metadata.version(distribution))
    return False


def _missing_packages() -> list[str]:
    return [name for name, extra in _requirements() if not extra and not _is_installed(name)]


def _packages(missing: list[str]) -> Finding:
    if not _requirements():
        return Finding("packages", "bad", f"trainrig itself is not installed; {INSTALL}")
    if missing:
        return Finding("packages", "bad", f"missing: {', '.join(missing)}; {INSTALL}")
    return Finding("packages", "ok", "all that every system needs")


def _requirement() -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        lines = metadata.requires("torchvision") or []
        return next((line for line in lines if re.match(r"torch\b", line)), None)
    return None


def _cores() -> Finding:
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    threads = os.environ.get("OMP_NUM_THREADS")
    text = f"{cores} for this process, load {load:.1f}, OMP_NUM_THREADS {threads or 'unset'}"
    text += "; a run takes one core (--threads), a sweep one run per core (--jobs)"
    if load > 1.2 * cores:
        text = f"{text}; others keep them busy: expect {load / cores:.1f} x the usual time"
        return Finding("cores", "note", text)
    return Finding("cores", "ok", text)


def _memory(meminfo: Path) -> Finding:
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        gib = int(lines["MemAvailable"].split()[0]) / 2**20
    except (OSError, ValueError, KeyError):
        return Finding("memory", "ok", "not known on this system")
    if gib < 2:
        return Finding("memory", "note", f"{gib:.1f} GiB free; give a sweep --jobs 1")
    return Finding("memory", "ok", f"{gib:.1f} GiB free; a run takes about 1 to 1.5 GiB")


def _compiler(which: Callable[[str], str | None]) -> Finding:
    named = os.environ.get("CXX")
    found = which(named) if named else which("g++") or which("clang++")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if found and header.exists():
        return Finding("C++ compiler", "ok", f"{found}, for --engine compile")
    lacking = f"{header} (the package python3-dev)" if found else f"{named or 'g++ or clang++'}"
    text = f"{lacking} is not there: --engine compile cannot be used; the other engines can"
    return Finding("C++ compiler", "note", text)


def _c_compiler() -> Finding:
    found = native.find_compiler()
    if found:
        return Finding("C compiler", "ok", f"{found}, for batch normalisation on a CPU")
    text = "none: batch normalisation on a CPU takes torch's operators, as exact but slower"
    return Finding("C compiler", "note", text)


def _folders(data: Path) -> list[Finding]:
    """Say whether results, prepared images and data can be written."""
    findings = []
    folders: tuple[tuple[str, Path, Literal["note", "bad"]], ...] = (
        ("results", Path("runs"), "bad"),
        ("cache", cache_dir(), "note"),
        ("data folder", data, "note"),
    )
    for topic, folder, state in folders:
        there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
        try:
            with tempfile.TemporaryFile(dir=there):
                free = shutil.disk_usage(there).free / 2**30
            text = f"{folder.absolute()}, {free:.0f} GiB free"
            findings.append(Finding(topic, "ok" if free > 1 else "note", text))
        except OSError as error:
            text = f"{folder.absolute()}: cannot be written ({error.strerror})"
            if folder == data != put_root(data):
                text += f"; data sets are put into {put_root(data)}, and found there"
            findings.append(Finding(topic, state, text))
    return findings


def _data(root: Path) -> list[Finding]:
    findings = []
    for data_set in DATA_SETS:
        topic, folder = f"data: {data_set.name}", data_set.locate(root)
        missing = [] if folder is None else data_set.missing(folder)
        if data_set.drawn:
            continue
        archive, advice = data_set.archive(root), f"{data_set.what}: {data_set.command(root)}"
        if folder is None and archive:
            text = f"only the archive {archive} is here; unpack it with: {data_set.command(root)}"
            findings.append(Finding(topic, "note", text))
        elif folder is None:
            findings.append(Finding(topic, "note", f"not here; {advice}"))
        elif missing:
            text = f"{folder} lacks {', '.join(missing)}; {advice}"
            findings.append(Finding(topic, "note", text))
        else:
            findings.append(Finding(topic, "ok", str(folder)))
    return findings


def _extras() -> list[Finding]:
    extras: dict[str, list[str]] = {}
    for name, extra in _requirements():
        if extra and name != "trainrig" and extra != "dev":
            extras.setdefault(extra, []).append(name)
    findings = []
    for extra, names in extras.items():
        missing = [name for name in names if not _is_installed(name)]
        text = f'missing: {", ".join(missing)}; pip install -e ".[{extra}]"'
        state: Literal["ok", "note"] = "note" if missing else "ok"
        findings.append(Finding(f"extra: {extra}", state, text if missing else ", ".join(names)))
    return findings
