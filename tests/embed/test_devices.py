"""One job a GPU: locks that end with their process."""

import subprocess
import sys
import threading

import torch

from phenopipe.embed import devices
from phenopipe.embed.devices import hold_one, one_device


def test_without_a_gpu_the_processor_computes():
    if not torch.cuda.is_available():
        with one_device() as device:
            assert device.type == "cpu"


def test_jobs_hold_different_devices_and_wait_for_a_free_one(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "SECONDS_BETWEEN_TRIES", 0.01)
    taken = []

    def third():
        with hold_one(["a", "b"], tmp_path) as place:
            taken.append(place)

    waiting = threading.Thread(target=third)
    with hold_one(["a", "b"], tmp_path) as first:
        with hold_one(["a", "b"], tmp_path) as second:
            waiting.start()
            waiting.join(0.1)
            assert (first, second, taken) == (0, 1, [])
        waiting.join(5)
    assert taken == [1]


def test_a_killed_job_lets_go(tmp_path):
    script = (
        "import fcntl, sys; handle = open(sys.argv[1], 'a')\n"
        "fcntl.flock(handle, fcntl.LOCK_EX)\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    job = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / "phenopipe-gpu-a.lock"],
        **{"stdout": subprocess.PIPE, "stdin": subprocess.PIPE},
    )
    assert job.stdout.readline() == b"held\n"
    with hold_one(["a", "b"], tmp_path) as place:
        assert place == 1
    job.kill()
    job.wait()
    with hold_one(["a", "b"], tmp_path) as place:
        assert place == 0
