"""What a cluster is called here: account, partitions, GPUs, the shape of trainings.

Part of the roof; ``profiles/slurm/config.yaml`` asks it for values while Snakemake reads
the profile. The file is ``profiles/slurm/site.yaml`` or the one that ``PHENOPIPE_SITE``
names; without a file, a site without accounts and with a default partition is assumed.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phenopipe.errors import UserError
from phenopipe.knobs import describe

FILE = Path("profiles", "slurm", "site.yaml")
Resources = dict[str, int | str]
# Environment variables that go before the file, for sites that set them for everyone.
VARIABLES = {
    "PHENOPIPE_ACCOUNT": "account",
    "PHENOPIPE_PARTITION": "partition",
    "PHENOPIPE_GPU_PARTITION": "gpu_partition",
    "PHENOPIPE_STATUS": "status",
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Shape(_Strict):
    """Where one training runs."""

    nodes: int = Field(default=1, ge=1)
    """Nodes."""
    processes: int = Field(default=1, ge=1)
    """Processes on each node; with GPUs, one GPU each."""
    threads: int = Field(default=1, ge=1)
    """Cores of each process: BLAS, torch and the reading of images share them."""
    gpus: bool = False
    """Whether processes have GPUs."""
    mem_mb: int | None = Field(default=None, ge=1)
    """Memory on each node; unset: what the rule asks for."""
    runtime: int | None = Field(default=None, ge=1)
    """Minutes until the training is stopped, saved and queued again; unset: the rule's."""
    notice: int = Field(default=300, ge=1)
    """Seconds before the time limit at which the training is told to save its state."""


class Site(_Strict):
    """A cluster."""

    account: str | None = None
    """Account that jobs are charged to; none: the site has no accounts."""
    partition: str | None = None
    """Partition of jobs without GPUs; none: the site's default."""
    gpu_partition: str | None = None
    """Partition of jobs with GPUs; none: the same as the others."""
    gpu_model: str | None = None
    """Name of the GPUs in ``gres``, such as a100; none: any."""
    gpus: dict[str, int] = Field(default_factory=dict)
    """GPUs of one job of a rule on one node, such as ``embed_wells: 1``."""
    trainings: dict[Literal["pretrain_mae", "pretrain_classifier"], Shape] = Field(
        default_factory=dict
    )
    """Where trainings run; unset: one process without a GPU."""
    groups: dict[str, str] = Field(
        default_factory=lambda: {
            "qc_images": "qc",
            "qc_profiles": "qc",
            "qc_wells": "qc",
            "align_apply": "aligned",
            "consistency_pvalues": "aligned",
        }
    )
    """Rules whose jobs, where they follow one another, become one job, and its name."""
    together: dict[str, int] = Field(default_factory=dict)
    """How many such chains are one job, by the name of the group: ``qc: 10``."""
    status: Literal["sacct", "squeue"] = "sacct"
    """Who is asked how jobs are: ``squeue`` where there is no accounting."""
    first_check: int = Field(default=20, ge=1)
    """Seconds until jobs are asked after; ``squeue`` needs MinJobAge of three times that."""

    def default_resources(self) -> Resources:
        """Resources of every job."""
        named = {"slurm_account": self.account, "slurm_partition": self.partition}
        return {key: value for key, value in named.items() if value is not None}

    def set_resources(self) -> dict[str, Resources]:
        """Resources of the rules that get GPUs or train."""
        sets = {
            rule: self._placed(gpu_resources(count, self.gpu_model), gpus=count > 0)
            for rule, count in self.gpus.items()
        }
        for rule in ("pretrain_mae", "pretrain_classifier"):
            shape = self.trainings.get(rule, Shape())
            made = training_resources(shape, self.gpu_model)
            sets[rule] = self._placed(made, gpus=shape.gpus)
        return {rule: made for rule, made in sets.items() if made}

    def set_threads(self) -> dict[str, int]:
        """Threads of the processes of trainings."""
        return {rule: shape.threads for rule, shape in self.trainings.items()}

    def _placed(self, resources: Resources, *, gpus: bool) -> Resources:
        """Add the partition that has what is asked for."""
        if gpus and self.gpu_partition:
            return {**resources, "slurm_partition": self.gpu_partition}
        return resources


def gpu_resources(count: int, model: str | None = None) -> Resources:
    """Resources of a job that has GPUs of one node and starts no steps of its own."""
    # Without tasks_per_gpu the executor would ask for as many tasks a GPU as tasks.
    return {"gres": _gres(count, model), "tasks_per_gpu": 0} if count else {}


def training_resources(shape: Shape, model: str | None = None) -> Resources:
    """Resources of a training on one node or on many.

    Notes
    -----
    The executor runs a job within a step of its own, which SLURM would signal as a whole,
    unless the key ``mpi`` is there; then the job stays in the batch script and starts its
    steps itself, here one a node (:mod:`phenopipe.pretrain.nodes`). ``mpi: srun`` is refused
    for one task, so one node has ``mpi: 0``: there, but not asking for tasks. ``gres`` counts
    GPUs a node, where ``gpu`` might share them out unevenly; ``--signal`` without ``B:``
    reaches the steps and not the batch script, which would die of it.
    """
    extra = [f"--signal=USR1@{shape.notice}"]
    made: Resources = {
        "nodes": shape.nodes,
        "srun_nodes": shape.nodes,
        "processes": shape.nodes * shape.processes,
        "cpus_per_task": shape.processes * shape.threads,
        "mpi": 0,
    }
    if shape.nodes > 1:
        made |= {"mpi": "srun", "tasks": shape.nodes}
        extra.append("--ntasks-per-node=1")
    if shape.gpus:
        made |= gpu_resources(shape.processes, model)
    for key in ("mem_mb", "runtime"):
        if (value := getattr(shape, key)) is not None:
            made[key] = value
    return {**made, "slurm_extra": f"'{' '.join(extra)}'"}


def read_site(environment: Mapping[str, str] | None = None) -> Site:
    """Read the site's file and the environment, which goes before it.

    Raises
    ------
    UserError
        If the file that the environment names is not there, or a key or value is wrong.
    """
    env = os.environ if environment is None else environment
    path = Path(env.get("PHENOPIPE_SITE", FILE))
    if "PHENOPIPE_SITE" in env and not path.is_file():
        raise UserError(f"{path}: no such file, named by PHENOPIPE_SITE")
    text = os.path.expandvars(path.read_text()) if path.is_file() else ""
    raw: dict[str, Any] = yaml.safe_load(text) or {}
    raw |= {key: env[name] for name, key in VARIABLES.items() if env.get(name)}
    try:
        return Site.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {describe(error)}") from None


def _gres(count: int, model: str | None) -> str:
    return ":".join(["gpu", *([model] if model else []), str(count)])
