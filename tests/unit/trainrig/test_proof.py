"""The proof in every setting: what a run's line says, and that whatever proves nothing fails."""

from __future__ import annotations

import os
import sys

import pytest

from trainrig.proof import Outcome, Setting, capabilities, heading, own_capability, prove

SETTING = Setting("avx2", 2)
#: Says what a proof says, without torch, of the setting in its environment.
PROCESSOR = (
    "import os; print('torch 0, CPU capability', os.environ['ATEN_CPU_CAPABILITY'].upper() +"
    " ', threads:', os.environ['OMP_NUM_THREADS'])\n"
)


def run(code, setting=SETTING, **arguments) -> Outcome:
    (outcome,) = prove({"stub": [sys.executable, "-c", code]}, [setting], **arguments)
    return outcome


def test_a_run_that_passes():
    outcome = run(PROCESSOR + "print('3 passed, 0 failed, 1 unchecked')")
    assert outcome.ok
    assert outcome.counts == (3, 0, 1)
    assert outcome.cells()[:6] == ("stub", "avx2", "2", "3", "0", "1")
    assert outcome.line().endswith("  ok")
    assert len(heading().split()) == len(outcome.line().split()) - 1


def test_a_run_that_fails_keeps_the_failing_rows():
    code = PROCESSOR + (
        "print('a  logits  1  0.5  FAIL\\nb  logits  0  0.5  ok\\n"
        "1 passed, 1 failed, 0 unchecked'); raise SystemExit(1)"
    )
    outcome = run(code)
    assert not outcome.ok
    assert outcome.counts == (1, 1, 0)
    assert outcome.failures == ("a  logits  1  0.5  FAIL",)
    assert outcome.line().endswith("  FAIL")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise RuntimeError('no\\nsuch kernel')", "crashed with exit status 1: such kernel"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "crashed with SIGKILL"),
        ("", "crashed with exit status 0: no message"),
        (PROCESSOR + "print('0 passed, 0 failed, 9 unchecked')", "nothing was checked"),
        (
            PROCESSOR + "print('1 passed, 0 failed, 0 unchecked'); raise SystemExit(3)",
            "crashed with exit status 3",
        ),
        (PROCESSOR + "print('1 passed, 1 failed, 0 unchecked')", "exit status 0 in spite"),
        ("print('1 passed, 0 failed, 0 unchecked')", "does not say which processor"),
        (
            "print('torch 0, CPU capability AVX512, threads: 1\\n1 passed, 0 failed, 0 unchecked')",
            "ran with avx512, threads: 1",
        ),
    ],
)
def test_a_run_that_proves_nothing_fails_with_one_line(code, reason):
    outcome = run(code)
    assert not outcome.ok
    assert reason in outcome.line()
    assert "\n" not in outcome.line()


def test_a_run_that_hangs_is_ended():
    outcome = run("import time; time.sleep(60)", timeout_s=0.2)
    assert not outcome.ok
    assert outcome.line().endswith("ended after 0.2 s")


def test_the_setting_reaches_torch(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")  # of whoever calls: it must not matter
    code = (
        "from trainrig.parity import describe_processor as d\n"
        "print(d()); print('1 passed, 0 failed, 0 unchecked')"
    )
    for threads in (1, 2):
        outcome = run(code, Setting("default", threads))
        assert outcome.ok, outcome.line()


def test_own_capability_does_not_depend_on_the_environment(monkeypatch):
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    own = own_capability()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert own_capability() == own
    assert os.environ["ATEN_CPU_CAPABILITY"] == "default"
    assert own in capabilities(own)
    assert capabilities(own)[0] == "default"
