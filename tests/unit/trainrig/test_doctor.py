"""``trainrig doctor`` on machines that lack this and that; it works without torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from trainrig import doctor
from trainrig.command import main

WORKING = {"torch": "2.15.0+cu132", "torchvision": "0.29.2+cu132", "built_for": "13.2"}


def states(findings):
    return {finding.topic: finding.state for finding in findings}


def text_of(findings, topic):
    return next(finding.text for finding in findings if finding.topic == topic)


def test_a_matching_pair_with_a_gpu():
    found = {**WORKING, "gpus": ["NVIDIA H100, 80 GiB"]}
    findings = doctor.torch_findings(found, "torch (==2.15.0)")
    assert states(findings) == {"torch": "ok", "torchvision": "ok", "CUDA": "ok"}
    assert "H100" in text_of(findings, "CUDA")


def test_torchvision_of_another_torch_is_found_by_its_metadata():
    findings = doctor.torch_findings(WORKING, "torch==2.13.0")
    assert states(findings)["torchvision"] == "bad"
    assert "made for torch 2.13.0, not 2.15.0" in text_of(findings, "torchvision")


def test_a_local_cpu_wheel_beside_torchvision_for_cuda_is_found_by_the_import():
    found = {
        "torch": "2.13.0+cpu",
        "built_for": None,
        "torchvision_error": "RuntimeError: operator torchvision::nms does not exist",
    }
    findings = doctor.torch_findings(found, "torch (==2.13.0)")  # the metadata see no conflict
    assert states(findings)["torchvision"] == "bad"
    assert "nms" in text_of(findings, "torchvision")
    assert "pip install -r requirements-torch.txt" in text_of(findings, "torchvision")
    assert "no GPU is visible" in text_of(findings, "CUDA")


def test_without_torch_there_is_one_finding():
    found = {"torch_error": "ModuleNotFoundError: No module named 'torch'"}
    (finding,) = doctor.torch_findings(found, None)
    assert finding.state == "bad"
    assert "No module named 'torch'" in finding.text


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10), "bad"), ((3, 11), "ok"), ((3, 13), "ok"), ((3, 14), "bad")]
)
def test_python_range(version, state):
    assert doctor._python(version).state == state


def test_no_compiler_is_a_note_that_says_what_for(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    finding = doctor._compiler(lambda name: None)
    assert (finding.state, "--engine compile" in finding.text) == ("note", True)


def test_a_busy_machine_says_how_slow(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(os, "getloadavg", lambda: (6.0, 0.0, 0.0))
    assert "expect 3.0 x" in doctor._cores().text
    monkeypatch.setattr(os, "getloadavg", lambda: (1.0, 0.0, 0.0))
    assert doctor._cores().state == "ok"


def test_missing_and_partial_data_name_the_command(tmp_path):
    folder = tmp_path / "MNIST/raw"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte").touch()
    findings = doctor._data(tmp_path)
    assert "lacks train-labels-idx1-ubyte.gz" in text_of(findings, "data: mnist")
    assert "trainrig data get mnist" in text_of(findings, "data: mnist")
    assert "--source FOLDER" in text_of(findings, "data: tolstoi")


def test_an_archive_at_hand_is_named_with_the_command_that_unpacks_it(tmp_path, monkeypatch):
    for name in ("tolstoi/tolstoi-deepobs.tar.gz", "cifar10-jpeg/cifar10-jpeg.tar.xz"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    monkeypatch.setenv("TRAINRIG_DATA_DIR", str(tmp_path))
    findings = doctor._data(tmp_path)
    tolstoi = text_of(findings, "data: tolstoi")
    assert f"archive {tmp_path}/tolstoi/tolstoi-deepobs.tar.gz is here" in tolstoi
    assert tolstoi.endswith("with: trainrig data get tolstoi")
    source = f"trainrig data get cifar10 --source {tmp_path}/cifar10-jpeg"
    assert text_of(findings, "data: cifar10").endswith(f"(a lossy copy) {source}")
    monkeypatch.delenv("TRAINRIG_DATA_DIR")
    command = f"trainrig data get tolstoi --data-dir {tmp_path}"
    assert text_of(doctor._data(tmp_path), "data: tolstoi").endswith(command)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_bad(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o500)
    assert states(doctor._folders(tmp_path / "data"))["results"] == "bad"


def test_exit_status_follows_the_findings(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "_packages", lambda missing: doctor.Finding("packages", "bad", "x"))
    monkeypatch.setattr(doctor, "PROBE_SECONDS", 0)
    assert main(["doctor"]) == 1
    assert "to be fixed: packages, torch" in capsys.readouterr().out


def test_this_machine_is_ready_and_the_doctor_quick():
    start = time.process_time()
    findings = doctor.examine()
    assert time.process_time() - start < 2  # the probe runs in a process of its own
    assert {"Python", "packages", "torch", "torchvision", "cores", "results"} <= set(
        states(findings)
    )
    assert "bad" not in states(findings).values()


def test_the_command_itself_imports_no_torch():
    code = (
        "import sys; sys.modules.update(torch=None, torchvision=None, rich=None, tqdm=None)\n"
        "from trainrig import command, doctor\n"
        "doctor._PROBE = 'import sys; sys.modules[\"torch\"] = None\\n' + doctor._PROBE\n"
        "sys.exit(command.main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "to be fixed: torch" in done.stdout
    assert done.stderr == ""
