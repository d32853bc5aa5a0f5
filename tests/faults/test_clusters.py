"""A sweep on a real SLURM and a real Ray cluster, disturbed: equal to the local one, bit by bit."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trainrig.runs import read_status

pytestmark = pytest.mark.slow
DAEMONS = ("munged", "slurmctld", "slurmd")
REQUEUES = 6
CONFIGURATION = """
ClusterName=local
SlurmctldHost=localhost
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=1
ReturnToService=2
RequeueExit=85
NodeName=localhost CPUs={cores} RealMemory=2000 State=UNKNOWN
PartitionName=debug Nodes=localhost Default=YES MaxTime=INFINITE State=UP
"""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def listens(host: str, port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex((host, port)) == 0


def wait_for(condition, seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A SLURM of one node that lives as long as this module's tests; yields its environment."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [name for name in DAEMONS if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        pytest.skip(f"needs root and slurm-wlm, munge; missing: {missing}")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    configuration = folder / "slurm.conf"
    ports, cores = free_ports(2), len(os.sched_getaffinity(0))
    configuration.write_text(CONFIGURATION.format(folder=folder, ports=ports, cores=cores))
    munged = ["munged", "--force", "--foreground", f"--socket={folder}/munge.socket"]
    munged += [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    log = (folder / "daemons.log").open("w")
    running = []

    def start(command):
        running.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))

    def idle():
        command = ["sinfo", "--noheader", "--format", "%T"]
        answer = subprocess.run(command, capture_output=True, text=True, env=environment)
        return answer.stdout.strip() == "idle"

    start(munged)
    wait_for((folder / "munge.socket").exists, 20, "munged did not start")
    start(["slurmctld", "-D", "-f", str(configuration)])
    start(["slurmd", "-D", "-f", str(configuration), "-N", "localhost"])
    wait_for(idle, 60, "the node did not become idle")
    yield environment
    subprocess.run(["scancel", "--user", "root"], env=environment)
    for daemon in reversed(running):
        daemon.terminate()
    for daemon in running:
        daemon.wait(timeout=60)
    log.close()


def start_waiting_jobs_now(environment) -> None:
    """A requeued job waits two minutes by default; nobody wants to watch that."""
    command = ["squeue", "--noheader", "--array", "--states=PD", "--format", "%i %r"]
    answer = subprocess.run(command, capture_output=True, text=True, env=environment)
    for line in answer.stdout.splitlines():
        job, _, reason = line.partition(" ")
        if reason == "BeginTime":
            update = ["scontrol", "update", f"JobId={job}", "StartTime=now"]
            subprocess.run(update, env=environment, capture_output=True)


class Disturber(threading.Thread):
    """Sends SIGUSR1 to running jobs, each once, and lets them start again at once."""

    def __init__(self, base: Path, environment: dict, number: int) -> None:
        super().__init__(daemon=True)
        self.base, self.environment, self.number = base, environment, number
        self.told: set[str] = set()
        self.over = threading.Event()

    def run(self) -> None:
        record = self.base / ".launch" / "record.json"
        while not self.over.wait(0.1):
            start_waiting_jobs_now(self.environment)
            if not record.exists() or len(self.told) >= self.number:
                continue
            for name, job in json.loads(record.read_text())["jobs"].items():
                status = read_status(self.base / name)
                if name not in self.told and status["status"] == "running":
                    subprocess.run(["scancel", "--signal=USR1", job], env=self.environment)
                    self.told.add(name)
                    break


@pytest.fixture(scope="session")
def sweep_argv(tmp_path_factory, repo_root):
    """Return a function: folder, flags -> a sweep of 24 small runs with dropout."""
    config = tmp_path_factory.mktemp("config") / "toy.py"
    config.write_text(
        "def get_config():\n"
        "    return {\n"
        "        'data': {'example_type': 'symbolic', 'symbolic_config': {'dataset_size': 1623}},\n"
        "        'embedding': {'example_encoding': 'embedding', 'emb_dim': 16},\n"
        "        'transformer': {'num_layers': 1, 'num_heads': 2, 'dropout_prob': 0.1},\n"
        "        'optimizer': {'name': 'adamw', 'warmup_steps': 5},\n"
        "        'training': {'batch_size': 4, 'log_interval': 50, 'eval_interval': 300,\n"
        "                     'save_interval': 300},\n"
        "        'evaluation': {'batches': 1, 'batch_size': 4},\n"
        "    }\n"
    )

    def argv(base: Path, *more: str) -> list[str]:
        words = f"""
            --config_path {config} --base_output_dir {base} --class_counts 30 40
            --weight_decays 0 0.01 0.1 --seeds 0 1 2 3 --training_steps 900 --device cpu --no-track
        """
        return [str(repo_root / "analysis/run_adamw_sweep_torch.py"), *words.split(), *more]

    return argv


@pytest.fixture(scope="session")
def local_sweep(sweep_argv, tmp_path_factory, repo_root):
    """The sweep by the local launcher, to compare with."""
    base = tmp_path_factory.mktemp("local") / "sweep"
    command = [sys.executable, *sweep_argv(base, "--jobs", "2")]
    subprocess.run(command, check=True, cwd=repo_root, capture_output=True)
    return base


def assert_equal_sweeps(one: Path, other: Path, assert_same) -> None:
    names = sorted(path.parent.name for path in one.glob("*/config.json"))
    assert len(names) == 24
    for name in names:
        assert_same(one / name, other / name)
    assert (one / "runs.csv").read_bytes() == (other / "runs.csv").read_bytes()


def test_a_sweep_with_forced_requeues_equals_the_local_one(
    slurm, sweep_argv, local_sweep, assert_same, tmp_path, repo_root
):
    base = tmp_path / "sweep"
    command = [sys.executable, *sweep_argv(base, "--launcher", "slurm", "--slurm-time", "30")]
    disturber = Disturber(base, slurm, REQUEUES)
    disturber.start()
    launcher = subprocess.Popen(command, cwd=repo_root, env=slurm, stderr=subprocess.PIPE)
    wait_for(lambda: len(disturber.told) >= 2, 300, "no job was told to leave")
    launcher.send_signal(signal.SIGINT)  # the launcher goes, its jobs stay
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, said.decode()
    assert "--attach follows them" in said.decode()
    again = subprocess.run(command, cwd=repo_root, env=slurm, capture_output=True, text=True)
    assert again.returncode == 1
    assert "are in the queue; --attach follows them" in again.stderr
    subprocess.run([*command, "--attach"], check=True, cwd=repo_root, env=slurm)
    disturber.over.set()
    disturber.join()
    logs = [path.read_text() for path in (base / ".launch" / "slurm").rglob("*.out")]
    left = sum("stopped (SIGUSR1)" in log for log in logs)
    assert left >= REQUEUES - 1  # a run may end before its signal arrives
    assert_equal_sweeps(local_sweep, base, assert_same)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of one core each on this host; yields address and environment."""
    ray = pytest.importorskip("ray", reason="needs the extra 'ray'")
    folder = tmp_path_factory.mktemp("ray")
    (port,) = free_ports(1)
    host = ray.util.get_node_ip_address()  # a loopback address would be translated to it
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 32}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "240"}
    command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1"]
    command += [f"--node-ip-address={host}", "--object-store-memory=100000000"]
    log = (folder / "ray.log").open("w")

    def start(*more):
        return subprocess.Popen(
            [*command, *more], stdout=log, stderr=log, env=environment, start_new_session=True
        )

    nodes = [start("--head", f"--port={port}", "--include-dashboard=false")]
    wait_for(lambda: listens(host, port), 120, "Ray's head did not start")
    nodes.append(start(f"--address={host}:{port}"))
    said = folder / "ray.log"
    both = "2 nodes did not start: see ray.log"
    wait_for(lambda: said.read_text().count("Ray runtime started") == 2, 240, both)
    yield f"{host}:{port}", environment
    for node in reversed(nodes):
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(timeout=60)
    log.close()


def kill_a_worker(base: Path, killed: list[int], over: threading.Event) -> None:
    """Kill the first process that has begun a run, as its lock names it."""
    while not over.wait(0.05) and not killed:
        for status in base.glob("*/status.json"):
            if read_status(status.parent)["status"] == "running":
                owner = (status.parent / ".lock").read_text()
                pid = int(re.search(r"pid (\d+)", owner)[1])
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break


def test_a_sweep_on_two_nodes_with_a_killed_worker_equals_the_local_one(
    cluster, sweep_argv, local_sweep, assert_same, tmp_path, repo_root
):
    address, environment = cluster
    base, killed, over = tmp_path / "sweep", [], threading.Event()
    argv = sweep_argv(base, "--launcher", "ray", "--ray-address", address)
    killer = threading.Thread(target=kill_a_worker, args=(base, killed, over), daemon=True)
    killer.start()
    launcher = subprocess.Popen([sys.executable, *argv], cwd=repo_root, env=environment)
    wait_for(lambda: killed or launcher.poll() is not None, 300, "no worker was killed")
    launcher.kill()  # the launcher is lost, the supervisor on the cluster is not
    launcher.wait()
    command = [sys.executable, *argv, "--attach"]
    subprocess.run(command, check=True, cwd=repo_root, env=environment)
    over.set()
    assert killed
    assert_equal_sweeps(local_sweep, base, assert_same)
