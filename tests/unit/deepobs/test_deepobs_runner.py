from __future__ import annotations

import datetime
import fcntl
import json
import math

import pytest
import torch

from deepobs.pytorch import config
from deepobs.pytorch.runners import LearningRateScheduleRunner, PTRunner, StandardRunner
from deepobs.pytorch.runners.hyperparameters import convert, resolve, specify
from deepobs.pytorch.runners.job import Job
from deepobs.pytorch.runners.runner import make_runner
from deepobs.pytorch.runners.settings import float2str, learning_rates, make_run_name, result_name
from trainrig.errors import CheckpointError
from trainrig.optim.composite import MuonWithAdamW

LR = {"lr": {"type": float}}
KEYS_11 = {
    "train_losses",
    "test_losses",
    "minibatch_train_losses",
    "optimizer",
    "testproblem",
    "weight_decay",
    "batch_size",
    "num_epochs",
    "learning_rate",
    "lr_sched_epochs",
    "lr_sched_factors",
    "random_seed",
    "train_log_interval",
    "hyperparams",
}
KEYS_12 = {"optimizer_name", "optimizer_hyperparams", "training_params", "l2_reg"}


def run(tmp_path, problem="quadratic_deep", optimizer=torch.optim.SGD, **arguments):
    hyperparams = arguments.pop("hyperparams", {"lr": 1e-2})
    names = {name: {"type": type(value)} for name, value in hyperparams.items()}
    arguments = {"num_epochs": 2, "batch_size": 128, "verbose": False, **arguments}
    return StandardRunner(optimizer, names).run(
        problem, hyperparams, output_dir=tmp_path, **arguments
    )


def result_of(folder):
    (path,) = [p for p in folder.rglob("*.json") if p.name.startswith("random_seed__")]
    return json.loads(path.read_text(), parse_constant=pytest.fail)


def without_times(output):
    return {key: value for key, value in output.items() if key != "timing"}


def test_result_file_has_both_schemas(tmp_path):
    output = run(tmp_path, "cifar10_3c3d", batch_size=8, train_log_interval=3)
    written = result_of(tmp_path)
    assert without_times(output) == without_times(written)
    assert not (KEYS_11 | KEYS_12) - written.keys()
    for key in ("train_losses", "test_losses", "train_accuracies", "test_accuracies"):
        assert len(written[key]) == 3
    assert len(written["minibatch_train_losses"]) == 2 * math.ceil((35 // 8) / 3)
    assert written["status"] == "complete"
    assert written["test_losses"][0] == pytest.approx(3.59, abs=0.3)  # includes the L2 term
    assert len(written["timing"]["test_seconds"]) == 3
    assert written["timing"]["peak_memory_bytes"] > 0
    assert written["environment"]["torch"] == torch.__version__


def test_accuracy_keys_are_absent_without_accuracy(tmp_path):
    assert not any("accuracies" in key for key in run(tmp_path))


def test_folder_layout(tmp_path):
    run(tmp_path, hyperparams={"lr": 1e-2, "momentum": 0.9}, weight_decay=0.0)
    (path,) = tmp_path.rglob("random_seed__*.json")
    assert path.parent.relative_to(tmp_path).as_posix() == (
        "quadratic_deep/SGD/num_epochs__2__batch_size__128__weight_decay__0.e+00"
        "__momentum__9.e-01__lr__1.e-02"
    )


def test_same_arguments_same_result(tmp_path):
    one = run(tmp_path / "a", "mnist_vae", batch_size=8)
    two = run(tmp_path / "b", "mnist_vae", batch_size=8)
    assert without_times(one) == without_times(two)
    other = run(tmp_path / "c", "mnist_vae", batch_size=8, random_seed=43)
    assert other["train_losses"] != one["train_losses"]


class StopError(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("problem", ["cifar10_3c3d", "mnist_vae", "tolstoi_char_rnn"])
@pytest.mark.parametrize("steps", [1, 4, 6])
def test_interrupted_run_resumes_exactly(tmp_path, monkeypatch, problem, steps):
    arguments = {"batch_size": 8, "optimizer": torch.optim.Adam, "hyperparams": {"lr": 1e-3}}
    whole = run(tmp_path / "whole", problem, **arguments)
    original, count = Job.steps, iter(range(1, 10**6))

    def steps_then_stop(self, start):
        for record in original(self, start):
            yield record
            if next(count) == steps:
                raise StopError

    monkeypatch.setattr(Job, "steps", steps_then_stop)
    with pytest.raises(StopError):
        run(tmp_path / "part", problem, checkpoint_interval_s=0, **arguments)
    monkeypatch.setattr(Job, "steps", original)
    assert not list((tmp_path / "part").rglob("random_seed__*.json"))
    resumed = run(tmp_path / "part", problem, checkpoint_interval_s=0, **arguments)
    assert without_times(resumed) == without_times(whole)
    last = [path.parent.name for path in (tmp_path / "part").rglob("weights.pt")]
    assert last == [path.parent.name for path in (tmp_path / "whole").rglob("weights.pt")]
    assert len(last) == 1
    rows = [
        next((tmp_path / name).rglob("metrics.jsonl")).read_bytes() for name in ("part", "whole")
    ]
    assert rows[0] == rows[1]


def weights_of(folder):
    return {path.parent.name: path.read_bytes() for path in folder.rglob("step_*/weights.pt")}


@pytest.mark.parametrize("problem", ["cifar10_3c3d", "mnist_vae", "tolstoi_char_rnn"])
def test_a_finished_run_becomes_longer_bit_for_bit(tmp_path, monkeypatch, problem):
    arguments = {"batch_size": 8, "optimizer": torch.optim.Adam, "hyperparams": {"lr": 1e-3}}
    arguments |= {"lr_sched_epochs": [1, 3], "lr_sched_factors": [0.1, 0.01]}
    whole = run(tmp_path / "whole", problem, num_epochs=4, **arguments)
    run(tmp_path / "part", problem, num_epochs=2, **arguments)
    original, seen = Job.steps, []

    def counted(self, start):
        seen.append(start // self.per_epoch)
        return original(self, start)

    monkeypatch.setattr(Job, "steps", counted)
    longer = run(tmp_path / "part", problem, num_epochs=4, **arguments)
    assert seen == [2]
    assert without_times(longer) == without_times(whole)
    folders = [
        next((tmp_path / name).rglob("num_epochs__4*/.random_seed__42"))
        for name in ("part", "whole")
    ]
    assert weights_of(folders[0]) == weights_of(folders[1]) != {}
    rows = [(folder / "logs/metrics.jsonl").read_bytes() for folder in folders]
    assert rows[0] == rows[1]
    record = json.loads((folders[0] / "environment.json").read_text())["lengthened"]
    assert record == [{"from": 2, "to": 4}]
    assert len(list((tmp_path / "part").rglob("random_seed__*.json"))) == 2  # both results stay


def test_a_run_that_cannot_become_longer_says_why_and_is_trained_whole(tmp_path, caplog):
    whole = run(tmp_path / "whole", num_epochs=3)
    run(tmp_path / "part", num_epochs=1)
    file = next((tmp_path / "part").rglob("environment.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | {"source_sha256": "older"}))
    longer = run(tmp_path / "part", num_epochs=3)
    assert without_times(longer) == without_times(whole)
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "not continued, trained from the beginning: " in line
    assert "source_sha256: older -> " in line


@pytest.mark.parametrize("keep", [True, False])
def test_the_last_checkpoint_stays_unless_told_otherwise(tmp_path, keep):
    run(tmp_path, num_epochs=1, keep_checkpoint=keep)
    assert len(weights_of(tmp_path)) == keep


def test_a_run_begins_with_the_weights_of_another(tmp_path):
    first = run(tmp_path, num_epochs=2)
    (file,) = tmp_path.rglob("random_seed__*.json")
    branch = run(tmp_path, num_epochs=1, init_from=str(file))
    assert branch["test_losses"][0] == first["test_losses"][-1]
    assert branch["branch"]["state"] is False
    assert branch["branch"]["step"] == 2 * (1000 // 128)
    (folder,) = tmp_path.rglob("*__init_from__14-*")
    known = json.loads((folder / ".random_seed__42/config.json").read_text())
    assert known["branch"] == branch["branch"]
    again = run(tmp_path, num_epochs=1, init_from=str(file))
    assert again == branch  # found, not trained again
    assert run(tmp_path, num_epochs=1)["test_losses"][0] == first["test_losses"][0]


def test_a_run_continues_with_the_state_of_another(tmp_path):
    arguments = {"optimizer": torch.optim.Adam, "batch_size": 128}
    whole = run(tmp_path / "whole", hyperparams={"lr": 0.05}, num_epochs=3, **arguments)
    run(tmp_path, hyperparams={"lr": 0.05}, num_epochs=2, **arguments)
    source = str(next(tmp_path.glob("quadratic_deep/Adam/*/.random_seed__42"))) + "@14"
    branch = run(
        tmp_path / "b",
        hyperparams={"lr": 0.05},
        num_epochs=3,
        init_from=source,
        init_state=True,
        **arguments,
    )
    differing = {key for key in whole if whole[key] != branch[key]}
    assert differing == {"timing"}
    assert branch["branch"]["state"] is True
    other = run(
        tmp_path / "c",
        hyperparams={"lr": 0.01},
        num_epochs=3,
        init_from=source,
        init_state=True,
        **arguments,
    )
    assert other["train_losses"][:3] == whole["train_losses"][:3]
    assert other["train_losses"][3] != whole["train_losses"][3]  # its own learning rate


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"init_state": True, "momentum": 0.9}, "has momentum 0.5, not 0.9; give the same"),
        ({"init_state": True, "batch_size": 100}, "epochs of 7 steps, and here of 10"),
        ({"init_state": True, "num_epochs": 1}, "this run ends after 7; give it more steps"),
        ({"init_from": "nowhere"}, "--init-from nowhere: nowhere holds no checkpoint"),
        ({"problem": "two_d_beale", "batch_size": 100}, "belongs to another model"),
    ],
)
def test_what_a_run_cannot_begin_from_is_refused(tmp_path, arguments, text):
    run(tmp_path, hyperparams={"lr": 1e-2, "momentum": 0.5}, num_epochs=2)
    (source,) = tmp_path.rglob(".random_seed__42")
    hyperparams = {"lr": 1e-2, "momentum": arguments.pop("momentum", 0.5)}
    arguments = {"init_from": str(source), "num_epochs": 3, **arguments}
    with pytest.raises((ValueError, CheckpointError), match=text):
        run(tmp_path / "b", hyperparams=hyperparams, **arguments)
    assert not list((tmp_path / "b").rglob("random_seed__*.json"))


def test_other_arguments_do_not_resume(tmp_path):
    run(tmp_path, train_log_interval=1)
    output = run(tmp_path, train_log_interval=5)
    assert len(output["minibatch_train_losses"]) == 2 * 2


def test_a_finished_run_is_not_repeated_unless_asked(tmp_path):
    def count():
        return len(list(tmp_path.rglob("random_seed__*.json")))

    first = run(tmp_path)
    assert (run(tmp_path), count()) == (first, 1)
    assert run(tmp_path, random_seed=1)["random_seed"] == 1
    assert count() == 2
    (path,) = tmp_path.rglob("random_seed__42__*.json")  # the name has the time in seconds
    path.rename(path.with_name("random_seed__42__2020-01-01-00-00-00.json"))
    again = run(tmp_path, skip_if_exists=False)
    assert count() == 3
    assert again["test_losses"] == first["test_losses"]
    assert run(tmp_path) == again != first  # the newest
    runner = StandardRunner(torch.optim.SGD, LR)
    arguments = {"hyperparams": {"lr": 1e-2}, "num_epochs": 2, "batch_size": 128}
    assert runner.run_exists("quadratic_deep", tmp_path, **arguments)
    assert not runner.run_exists("quadratic_deep", tmp_path, **{**arguments, "num_epochs": 3})


def test_no_logs_writes_nothing(tmp_path):
    output = run(tmp_path, no_logs=True)
    assert output["status"] == "complete"
    assert not list(tmp_path.iterdir())


def test_divergence_is_recorded_and_not_padded(tmp_path):
    output = run(tmp_path, hyperparams={"lr": 1e6}, num_epochs=5, train_log_interval=1)
    written = result_of(tmp_path)
    assert written["status"] == "diverged"
    assert len(output["train_losses"]) < 6
    assert written["minibatch_train_losses"].count(None) == 1
    assert written["minibatch_train_losses"][-1] is None


def test_divergence_can_be_followed_to_the_end(tmp_path):
    run(tmp_path, hyperparams={"lr": 1e6}, num_epochs=3, on_divergence="continue")
    written = result_of(tmp_path)
    assert len(written["train_losses"]) == 4
    assert written["train_losses"][1:] == [None] * 3


def test_two_runs_in_one_folder_at_once_are_refused(tmp_path):
    runner = StandardRunner(torch.optim.SGD, LR)
    arguments = {"batch_size": 128, "num_epochs": 2}
    settings = runner.make_settings("quadratic_deep", {"lr": 1e-2}, **arguments)
    work = runner.run_folder(settings, tmp_path) / ".random_seed__42"
    work.mkdir(parents=True)
    with (work / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ValueError, match="another process"):
            run(tmp_path)
    assert run(tmp_path)["status"] == "complete"


def test_schedule(tmp_path):
    seen = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    run(
        tmp_path,
        optimizer=Recording,
        hyperparams={"lr": 0.02},
        batch_size=1000,
        num_epochs=5,
        lr_sched_epochs=[2, 4],
        lr_sched_factors=[0.1, 0.01],
    )
    expected = [0.02, 0.02, 0.002, 0.002, 0.0002]  # between the trials of its step, on copies
    assert expected in [seen[first : first + 5] for first in range(len(seen))]
    assert seen.count(0.002) == 2
    assert "lr_schedule__0_2.e-02_2_2.e-03_4_2.e-04" in str(next(tmp_path.rglob("random*.json")))


@pytest.mark.parametrize(
    ("epochs", "factors", "error", "text"),
    [
        ([1, 2], [0.1], ValueError, "2 epochs but 1 factors"),
        ([1], None, TypeError, "lr_sched_factors is missing"),
        (None, [0.1], TypeError, "lr_sched_epochs is missing"),
        (3, 0.1, ValueError, "two lists are expected"),
        ([2, 1], [0.1, 0.2], ValueError, "increasing integers"),
    ],
)
def test_bad_schedules(tmp_path, epochs, factors, error, text):
    with pytest.raises(error, match=text) as caught:
        run(tmp_path, lr_sched_epochs=epochs, lr_sched_factors=factors)
    assert isinstance(caught.value, ValueError)
    assert not list(tmp_path.iterdir())


def test_schedule_runner_needs_a_schedule(tmp_path):
    runner = LearningRateScheduleRunner(torch.optim.SGD, LR)
    with pytest.raises(ValueError, match="none given"):
        runner.run("quadratic_deep", {"lr": 0.1}, output_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"problem": "mnist_mpl"}, RuntimeError, "did you mean 'mnist_mlp'"),
        ({"problem": "two_d_beale", "batch_size": None}, ValueError, "no default batch_size"),
        ({"weight_decay": -1.0}, ValueError, "weight_decay is -1.0"),
        ({"batch_size": 0}, ValueError, "batch_size is 0"),
        ({"num_epochs": -1}, ValueError, "num_epochs is -1"),
        ({"random_seed": -1}, ValueError, "random_seed is -1"),
        ({"train_log_interval": 0}, ValueError, "train_log_interval is 0"),
        ({"batch_size": 2000}, ValueError, "larger than the train set"),
        ({"l2": "both"}, ValueError, "accepted: loss, optimizer-groups"),
    ],
)
def test_bad_arguments(tmp_path, arguments, error, text):
    with pytest.raises(error, match=text):
        run(tmp_path, **arguments)
    assert not list(tmp_path.rglob("random_seed__*.json"))


def test_hyperparameters_are_checked():
    specification = {"lr": {"type": float}, "nesterov": {"type": bool, "default": False}}
    assert resolve(specification, {"lr": "1e-2"}, "x") == {"lr": 0.01, "nesterov": False}
    with pytest.raises(
        KeyError, match=r"unknown hyperparameter 'nesterof'; did you mean 'nesterov'"
    ):
        resolve(specification, {"lr": 1, "nesterof": True}, "x")
    with pytest.raises(KeyError, match="'lr' has no value and no default"):
        resolve(specification, {}, "x")
    with pytest.raises(ValueError, match="lr is 'fast'; float is expected"):
        resolve(specification, {"lr": "fast"}, "x")


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("False", bool, False),
        ("true", bool, True),
        ("0.9,0.99", tuple, (0.9, 0.99)),
        ("(0.9,0.99)", tuple, (0.9, 0.99)),
        ("3", int, 3),
        ("1e-3", None, 1e-3),
        ("none", None, None),
    ],
)
def test_texts_become_values(text, kind, value):
    assert convert(text, kind, "x") == value


@pytest.mark.parametrize(
    ("name", "optimizer", "folder"),
    [
        ("Adam", torch.optim.Adam, "Adam"),
        ("adam", torch.optim.Adam, "Adam"),
        ("momentum", torch.optim.SGD, "Momentum"),
        ("torch.optim.RMSprop", torch.optim.RMSprop, "RMSprop"),
        ("Muon", MuonWithAdamW, "muon"),
    ],
)
def test_optimizers_of_the_one_registry(name, optimizer, folder):
    runner, given = make_runner(name, {"lr": 0.1})
    assert runner.optimizer_class is optimizer
    assert runner.optimizer_name == folder
    assert given == {"lr": 0.1, **({"momentum": 0.99, "nesterov": False} if name[0] == "m" else {})}


def test_unknown_optimizers_are_refused_and_types_are_known():
    with pytest.raises(KeyError, match="did you mean 'adam'"):
        make_runner("Addam", {})
    with pytest.raises(ValueError, match="cannot import 'nowhere'"):
        make_runner("nowhere.Adam", {})
    assert specify(torch.optim.Adam)["betas"]["type"] is tuple


def test_optimizers_that_need_a_closure(tmp_path):
    output = run(
        tmp_path,
        optimizer=torch.optim.LBFGS,
        hyperparams={"lr": 0.5},
        batch_size=1000,
        num_epochs=3,
    )
    assert output["train_losses"][-1] < 90


def test_optimizers_without_learning_rate(tmp_path):
    class Signs(torch.optim.Optimizer):
        def __init__(self, parameters, size):
            super().__init__(parameters, {"size": size})

        @torch.no_grad()
        def step(self):
            for group in self.param_groups:
                for p in group["params"]:
                    p -= group["size"] * p.grad.sign()

    output = run(tmp_path, optimizer=Signs, hyperparams={"size": 0.05}, num_epochs=3)
    assert output["learning_rate"] is None
    assert output["train_losses"][-1] < output["train_losses"][0]
    assert "__size__5.e-02/" in str(next(tmp_path.rglob("random*.json")))


def test_the_list_of_dictionaries_of_11_is_understood(tmp_path):
    runner = StandardRunner(torch.optim.SGD, [{"name": "lr", "type": float, "default": 0.01}])
    output = runner.run(
        "quadratic_deep", num_epochs=1, no_logs=True, verbose=False, output_dir=tmp_path
    )
    assert output["learning_rate"] == 0.01


def test_console_lines(tmp_path, capsys):
    run(tmp_path, num_epochs=1, verbose=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "*" * 32
    assert lines[1] == "Evaluating after 0 of 1 epochs..."
    assert lines[2].startswith("TRAIN: loss ")
    assert lines[3].startswith("TEST: loss 353.447, acc 0.000000")
    assert "Setting learning rate to 0.010000" in lines


def test_fixed_mode_validates_and_has_its_own_folder(tmp_path):
    config.set_compat("fixed")
    output = run(tmp_path)
    assert len(output["valid_losses"]) == 3
    assert "compat__fixed" in str(next(tmp_path.rglob("random*.json")))


def test_abstract_runner_cannot_be_made():
    with pytest.raises(TypeError, match="abstract"):
        PTRunner(torch.optim.SGD, LR)


def test_names():
    assert float2str(1.0) == "1.e+00"
    assert learning_rates(0.3, None, None) == {0: 0.3}
    assert make_run_name(None, 1, 2, {"b": True, "a": 3}, {0: 0.5}) == (
        "num_epochs__2__batch_size__1__a__3__b__True__lr__5.e-01"
    )
    moment = datetime.datetime(2020, 1, 2, 3, 4, 5)
    assert result_name(7, moment) == "random_seed__7__2020-01-02-03-04-05.json"
