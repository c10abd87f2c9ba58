"""Trainings under SLURM: one step a node, a state saved in time, the job queued again.

The rule's command stays in the batch script and starts itself once a node by ``srun``
(:func:`start_steps`); there it starts its processes, which meet at the first node
(:func:`rendezvous`). SLURM signals the steps before the time limit; they save a state and
end with a code of their own, upon which the job is put back into the queue, to go on from
there. It stays the same job, so that Snakemake goes on waiting for it.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import Any

from phenopipe.errors import UserError

NODES = "PHENOPIPE_NODES"
# Set within the steps, so that they start processes and no steps.
WITHIN = "PHENOPIPE_WITHIN_STEP"
# Until a process listens to it, the signal must not end it: starting takes a while.
DEAF = ("sh", "-c", "trap '' USR1; exec \"$@\"", "sh")
# Seconds in which all nodes have to arrive, and to end once one has ended; and in which SLURM
# ends a job that it requeued.
ARRIVAL = 300
PARTING = 120
ENDING = 600
# Ports above those that daemons have; jobs of one node get different ones.
FIRST_PORT, PORTS = 20000, 20000


def nodes_asked() -> int:
    """Nodes on which SLURM shall start the training; 0: it is started here."""
    text = os.environ.get(NODES) or "0"
    if not text.isdecimal():
        raise UserError(f"{NODES}={text}: wanted a number of nodes")
    nodes = int(text)
    if nodes and "SLURM_JOB_ID" not in os.environ:
        raise UserError(f"{NODES}={text}: wanted within a SLURM job only")
    return nodes


def rendezvous(nodes: int) -> dict[str, Any]:
    """Settings by which the launchers of all nodes meet, in the order of the nodes.

    The first node is where the batch script runs and called ``srun``.
    """
    port = FIRST_PORT + int(os.environ["SLURM_JOB_ID"]) % PORTS
    return {
        "run_id": os.environ["SLURM_JOB_ID"],
        "min_nodes": nodes,
        "max_nodes": nodes,
        "rdzv_backend": "static",
        "rdzv_endpoint": f"{os.environ['SLURM_LAUNCH_NODE_IPADDR']}:{port}",
        "rdzv_configs": {"rank": int(os.environ["SLURM_NODEID"]), "timeout": ARRIVAL},
    }


def start_steps(
    nodes: int, processes: int, module: str, argv: Sequence[str], again: int
) -> int:
    """Start this command once on each node; queue the job again if it ends with ``again``.

    Raises
    ------
    UserError
        If the nodes cannot have equally many processes.
    """
    if processes % nodes:
        raise UserError(f"{processes} processes cannot be shared equally by {nodes} nodes")
    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    flags = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    # Without it a step has one core, whatever the job has.
    flags += [f"--cpus-per-task={processes // nodes * threads}"]
    # All nodes end with the code that asks for another start; ending the others for one that
    # is quicker would hide it. Those that a crash leaves behind are ended after a while.
    flags += ["--kill-on-bad-exit=0", f"--wait={PARTING}"]
    told: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        told.append(number)

    # The steps get the same signal from SLURM; this process has to outlive them.
    for one in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(one, note)
    step = subprocess.Popen(
        ["srun", *flags, *DEAF, sys.executable, "-m", module, *argv],
        env={**os.environ, WITHIN: "1"},
    )
    code = step.wait()
    if code == again and signal.SIGTERM not in told and _requeue():
        time.sleep(ENDING)
    return code


def _requeue() -> bool:
    """Put this job back into the queue; where a site forbids that, Snakemake's retry helps."""
    job = os.environ["SLURM_JOB_ID"]
    done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
    said = done.stderr.strip() if done.returncode else "queued again"
    sys.stderr.write(f"job {job}: {said}\n")
    sys.stderr.flush()
    return done.returncode == 0
