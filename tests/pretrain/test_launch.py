import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from phenopipe.errors import UserError
from phenopipe.pretrain import launch
from phenopipe.pretrain.launch import EXIT_REQUEUE, Signals, processes_asked
from phenopipe.pretrain.loop import Training
from phenopipe.pretrain.mae import main
from tests.pretrain.test_mae import command


def test_signal_is_noted_and_the_old_handlers_come_back():
    before = signal.getsignal(signal.SIGTERM)
    with Signals() as signals:
        assert signals.asked is None
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.asked == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) == before


def test_processes_are_asked_for_by_the_environment(monkeypatch):
    monkeypatch.delenv("PHENOPIPE_PROCESSES", raising=False)
    assert processes_asked() is None
    monkeypatch.setenv("PHENOPIPE_PROCESSES", "3")
    assert processes_asked() == 3


def two_processes(screen, folder):
    """A training of two processes as its command starts it, long enough to be told to stop."""
    flags = command(screen, folder, updates=3000, checkpoint_every=1000)
    with (folder / "log").open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "phenopipe.pretrain.mae", *flags],
            env={**os.environ, "PHENOPIPE_PROCESSES": "2"},
            stdout=log,
            stderr=log,
        )


def test_command_starts_two_processes_that_stop_when_it_is_told_to(screen, tmp_path):
    rows = tmp_path / "states"
    training = two_processes(screen, tmp_path)
    while not [p for p in rows.glob("*/history.jsonl") if p.read_text().count("\n") >= 3]:
        assert training.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.02)
    training.send_signal(signal.SIGUSR1)
    assert training.wait() == EXIT_REQUEUE
    told = (tmp_path / "log").read_text()
    assert "on 2 processes" in told and "exit code 85" in told
    assert not (tmp_path / "encoder").exists()
    (state,) = rows.glob("*/update-*")
    # Each of them wrote its part; one process goes on from there.
    assert len(list(state.glob("*.safetensors"))) == 2
    done = int(state.name.removeprefix("update-"))
    assert 3 <= done < 3000


def test_a_signal_while_processes_start_ends_none_and_is_not_lost(screen, tmp_path):
    training = two_processes(screen, tmp_path)
    launcher = psutil.Process(training.pid)

    def trains(process):
        # The launcher has other children for a moment, which may be gone by now.
        with contextlib.suppress(psutil.NoSuchProcess):
            return "phenopipe.pretrain.mae" in process.cmdline()[:3]
        return False

    def starting():
        # Once they are Python, they are deaf by then and do not listen for seconds.
        return [process for process in launcher.children() if trains(process)]

    while len(starting()) < 2:
        assert training.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    # As SLURM does it: everyone in the step.
    for process in (*starting(), launcher):
        process.send_signal(signal.SIGUSR1)
    assert training.wait() == EXIT_REQUEUE, (tmp_path / "log").read_text()
    assert len(list((tmp_path / "states").glob("*/update-*"))) == 1


def test_mistake_is_told_by_the_first_process_alone(monkeypatch):
    def mistaken():
        raise UserError("batch 5 cannot be shared")

    for rank, told in (("0", "error: batch 5 cannot be shared"), ("1", 1)):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setattr(launch, "die_with_parent", lambda: None)
        with pytest.raises(SystemExit) as stopped:
            launch.run_training(mistaken)
        assert stopped.value.code == told


def test_one_process_stops_and_goes_on(screen, tmp_path, monkeypatch):
    whole, cut = (command(screen, tmp_path / name) for name in ("whole", "cut"))
    main(whole)
    step = Training.step

    def told(self, update, batch):
        if update == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, update, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", told)
        with pytest.raises(SystemExit) as stopped:
            main(cut)
    assert stopped.value.code == EXIT_REQUEUE
    main(cut)
    first, second = (
        (tmp_path / name / "encoder/model.safetensors").read_bytes()
        for name in ("whole", "cut")
    )
    assert first == second
