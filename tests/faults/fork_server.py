"""A process that imports torch once, then runs scripts in forked children that may be killed.

Each line on standard input is a JSON request, each line on standard output its answer. The faults
patch the standard library, or our classes, in the child only; the product has no hooks for them.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path


def die(request: dict) -> None:
    """Leave proof that the point was reached, then die as by `kill -9`."""
    descriptor = os.open(request["proof"], os.O_CREAT | os.O_WRONLY | os.O_EXCL)
    os.write(descriptor, request["point"].encode())
    os.close(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)


def on_call(owner: object, name: str, request: dict, when: str, matches=lambda *_: True) -> None:
    """Die before or after the n-th matching call of ``owner.name``."""
    real, left = getattr(owner, name), [request["n"]]

    def patched(*arguments, **options):
        if not matches(*arguments):
            return real(*arguments, **options)
        left[0] -= 1
        if left[0] == 0 and when == "before":
            die(request)
        result = real(*arguments, **options)
        if left[0] == 0:
            die(request)
        return result

    setattr(owner, name, patched)


def install(request: dict) -> None:
    """Arm one fault."""
    from trainrig import recorder
    from trainrig.runs import RunDirectory
    from trainrig.tracking.metric_log import MetricLog

    special = {
        "middle of a line of metrics.jsonl": lambda: in_mid_line(request, "metrics.jsonl"),
        "middle of a line of progress.txt": lambda: in_mid_line(request, "progress.txt"),
        "middle of pruning": lambda: in_mid_pruning(request),
        "middle of a file of a checkpoint": lambda: in_mid_file(request),
        "a data-loading process dies": lambda: losing_a_loader(request),
        "the clock jumps back": lambda: with_a_jumping_clock(request),
    }
    calls = {
        "before fsync": (os, "fsync", "before"),
        "files fsynced, before rename": (os, "rename", "before", is_checkpoint),
        "renamed, before fsync of the directory": (os, "rename", "after", is_checkpoint),
        "checkpoint done, before pruning and status": (shutil, "rmtree", "before", is_pruned),
        "checkpoint and pruning done, before status": (RunDirectory, "set_status", "before"),
        "status written": (RunDirectory, "set_status", "after"),
        "rows appended, before checkpoint": (MetricLog, "sync", "before"),
        "rows durable, before checkpoint": (
            recorder,
            "save_checkpoint",
            "before",
        ),
        "row appended": (MetricLog, "append", "after"),
        "temporary file written, before replace": (os, "replace", "before"),
        "one log of two cut back": (os, "truncate", "after"),
    }
    point = request["point"]
    if point in special:
        special[point]()
    else:
        owner, name, when, *matches = calls[point]
        on_call(owner, name, request, when, *matches)


def is_checkpoint(path, *_) -> bool:
    """Whether a path is that of a checkpoint, finished or not."""
    return Path(path).name.lstrip(".").startswith("step_")


def is_pruned(path, *_) -> bool:
    """Whether a removal is that of an old checkpoint, not of a temporary directory."""
    return Path(path).name.startswith("step_")


def in_mid_line(request: dict, name: str) -> None:
    """Die after half of the n-th line of a log has reached the file."""
    from trainrig.tracking.metric_log import MetricLog

    real, left = MetricLog.append, [request["n"]]

    class Half:
        def __init__(self, file):
            self.file = file

        def write(self, line):
            self.file.write(line[: len(line) // 2])
            self.file.flush()
            die(request)

    def append(log, row):
        left[0] -= 1
        if left[0] == 0:
            log._files[name] = Half(log._files[name])
        real(log, row)

    MetricLog.append = append


def in_mid_pruning(request: dict) -> None:
    """Die when the n-th old checkpoint has lost one of its files."""
    real, left = shutil.rmtree, [request["n"]]

    def rmtree(path, *arguments, **options):
        if is_pruned(path):
            left[0] -= 1
            if left[0] == 0:
                (Path(path) / request.get("victim", "state.pt")).unlink()
                die(request)
        real(path, *arguments, **options)

    shutil.rmtree = rmtree


def in_mid_file(request: dict) -> None:
    """Die when half of the n-th durable file has been written."""
    import trainrig.checkpoint

    real, left = trainrig.checkpoint.write_durably, [request["n"]]

    def write_durably(path, content):
        left[0] -= 1
        if left[0] == 0:
            path.write_bytes(content[: len(content) // 2])
            die(request)
        real(path, content)

    trainrig.checkpoint.write_durably = write_durably


def losing_a_loader(request: dict) -> None:
    """Kill a data-loading process, not this one, before the n-th row is appended."""
    from trainrig.tracking.metric_log import MetricLog

    real, left = MetricLog.append, [request["n"]]

    def append(log, row):
        left[0] -= 1
        if left[0] == 0:
            victims = descendants(os.getpid())
            os.kill(victims[0], signal.SIGKILL)
            Path(request["proof"]).write_text(request["point"])
        real(log, row)

    MetricLog.append = append


def with_a_jumping_clock(request: dict) -> None:
    """Set the wall clock back by a day at its n-th reading."""
    real, left = time.time, [request["n"]]

    def now() -> float:
        left[0] -= 1
        if left[0] == 0:
            Path(request["proof"]).write_text(request["point"])
        return real() - (86400.0 if left[0] <= 0 else 0.0)

    time.time = now


def child(request: dict) -> None:
    """Run one script's main and exit with its status."""
    output = os.open(request["output"], os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    code = 70
    try:
        if request.get("max_file_bytes"):
            import resource

            limit = request["max_file_bytes"]
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        if request.get("point"):
            install(request)
        sys.argv = [request["script"], *request["argv"]]
        code = importlib.import_module(request["script"]).main(request["argv"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's children, their children, and so on."""
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child_id in map(int, file.read_text().split()):
            found += [child_id, *descendants(child_id)]
    return found


def serve() -> None:
    """Answer requests until standard input ends."""
    import torch

    for module in ("matplotlib.figure", "ml_collections", "tqdm", "pytorch_port.sweep.carry_out"):
        importlib.import_module(module)  # so that the children have them already
    torch.set_num_threads(1)
    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.AdamW([weight], fused=True).step()  # the first step imports torch's compiler
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        started, family = time.monotonic(), []
        pid = os.fork()
        if pid == 0:
            child(request)
        if "kill_after_s" in request:
            time.sleep(request["kill_after_s"])
            os.kill(pid, signal.SIGKILL)
        elif "kill_when" in request:
            deadline = time.monotonic() + 60
            while not any(Path(p).exists() for p in request["kill_when"]):
                if time.monotonic() > deadline:
                    break
                time.sleep(0.01)
            family = descendants(pid)
            os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        answer = {
            "killed": killed,
            "code": None if killed else os.waitstatus_to_exitcode(status),
            "seconds": time.monotonic() - started,
            "family": family,
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
