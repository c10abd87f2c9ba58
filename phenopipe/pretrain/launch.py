"""How a training is started, stopped and started again: one process or many, one command.

``python -m phenopipe.pretrain.mae ...`` is one process; under ``torchrun`` it is one of
many. With ``PHENOPIPE_PROCESSES=N`` in its environment, which is how the rules ask, the
command starts N of itself by the library behind torchrun, passes signals on to them, and
returns what they return. ``PHENOPIPE_NODES`` spreads them over nodes of a SLURM job
(:mod:`phenopipe.pretrain.nodes`).
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Self

import psutil

from phenopipe.errors import UserError
from phenopipe.knobs import run_step
from phenopipe.pretrain.nodes import DEAF, WITHIN, nodes_asked, rendezvous, start_steps

# Exit code of a training that saved its state because a signal told it to stop: run it again.
EXIT_REQUEUE = 85
STOPPING = (signal.SIGTERM, signal.SIGUSR1)
ASKED = "PHENOPIPE_PROCESSES"
# Seconds after which processes that were still starting are told again.
AGAIN = 1.0
# From the system's headers: the signal that a process gets when its parent ends.
PR_SET_PDEATHSIG = 1


class Signals:
    """While in use, a signal to stop is noted and nothing else; ``asked`` tells which."""

    asked: str | None = None

    def __enter__(self) -> Self:
        self._before = {one: signal.signal(one, self._note) for one in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for one, handler in self._before.items():
            signal.signal(one, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.asked = signal.Signals(number).name


def processes_asked() -> int | None:
    """Processes that the environment asks for; None if it does not say."""
    text = os.environ.get(ASKED)
    if text is None:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{ASKED}={text}: wanted a number of processes from 1 on")
    return int(text)


def run_training(main: Callable[[], None]) -> None:
    """Run a training command: here, or as several processes where they are asked for."""
    launched = "RANK" in os.environ
    try:
        asked, nodes = processes_asked() or 1, nodes_asked()
        if nodes and WITHIN not in os.environ:
            module = _module()
            sys.exit(start_steps(nodes, asked, module, sys.argv[1:], EXIT_REQUEUE))
    except UserError as error:
        sys.exit(f"error: {error}")
    if not launched and asked > 1:
        sys.exit(start(asked, nodes))
    if launched:
        die_with_parent()
    if os.environ.get("RANK", "0") == "0":
        run_step(main)
        return
    # What there is to tell, the first process tells.
    try:
        main()
    except UserError:
        sys.exit(1)


def die_with_parent() -> None:
    """Let the system end this process where the one that started it is killed.

    Else it would train on, beside the next start of the same training.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start(processes: int, nodes: int = 0) -> int:
    """Start this command as several processes and return their common exit code.

    On one of several nodes, this node's share of them.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    here = {"min_nodes": 1, "max_nodes": 1, "rdzv_backend": "c10d"}
    meeting = rendezvous(nodes) if nodes > 1 else {**here, "rdzv_endpoint": "localhost:0"}
    # Threads of several processes on one machine would stand in each other's way.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    config = LaunchConfig(
        **meeting,
        nproc_per_node=processes // max(nodes, 1),
        max_restarts=0,
        # Those that mean "save and stop" are passed on below; the others end the training.
        signals_to_handle="SIGINT,SIGHUP,SIGQUIT",
    )
    for one in STOPPING:
        signal.signal(one, _pass_on)
    signal.signal(signal.SIGALRM, lambda *_: _pass_on(signal.SIGUSR1, None))
    try:
        # A handler of ours is not inherited: without deafness they would die of the signal.
        elastic_launch(config, DEAF[0])(
            *DEAF[1:], sys.executable, "-m", _module(), *sys.argv[1:]
        )
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        return EXIT_REQUEUE if EXIT_REQUEUE in codes else 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return 0


def _module() -> str:
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "started as python -m"
    return spec.name


def _pass_on(number: int, _: FrameType | None) -> None:
    """Tell the processes; those that do not listen yet are told again until they do."""
    if number == signal.SIGUSR1:
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            child.send_signal(number)
