"""Is this place ready for a run? Each line says ok, or what to do.

python -m phenopipe.doctor                 this machine
python -m phenopipe.doctor --slurm         and the cluster that the site's file names
python -m phenopipe.doctor --needs 200     and whether 200 GB fit (see phenopipe.plan)
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from phenopipe.errors import UserError
from phenopipe.knobs import run_step
from phenopipe.site import Site, read_site

LOCK = Path(__file__).parents[1] / "requirements.lock"
WATCHED = ("snakemake", "snakemake-executor-plugin-slurm", "polars", "torch", "timm", "zarr")
# Below this, shards of images are written slower than processors can read them.
SLOW_MB_S = 50.0
PROBE_MB = 64


class Finding(NamedTuple):
    """One line: what was looked at, whether it is well, what was found or is to be done."""

    what: str
    well: bool
    told: str


def versions() -> Iterator[Finding]:
    """Compare what is installed with the tested versions."""
    text = LOCK.read_text() if LOCK.is_file() else ""
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^\s\\]+)", text, re.MULTILINE))
    for name in WATCHED:
        try:
            found = version(name)
        except PackageNotFoundError:
            yield Finding(name, False, "not installed: pip install -r requirements.lock")
            continue
        wanted = locked.get(name, found)
        well = found == wanted
        told = found if well else f"{found}, tested with {wanted}: install requirements.lock"
        yield Finding(name, well, told)


def disk(folder: Path, needs_gb: float) -> Iterator[Finding]:
    """Look at free space, and time one write to the end."""
    free = shutil.disk_usage(folder).free / 1e9
    told = f"{free:.0f} GB free, {needs_gb:.0f} GB wanted"
    well = free >= needs_gb
    yield Finding("disk", well, told if well else f"{told}: make room or use --directory")
    probe = folder / f".phenopipe-doctor-{os.getpid()}"
    started = time.monotonic()
    try:
        with probe.open("wb") as handle:
            for _ in range(PROBE_MB):
                handle.write(os.urandom(1 << 20))
            os.fsync(handle.fileno())
    except OSError as error:
        yield Finding("writing", False, f"{error.strerror}: choose a folder that is yours")
        return
    finally:
        probe.unlink(missing_ok=True)
    speed = PROBE_MB / (time.monotonic() - started)
    told = f"{speed:.0f} MB/s"
    slow = f"{told}, under {SLOW_MB_S:.0f}: results belong on a faster file system"
    yield Finding("writing", speed >= SLOW_MB_S, told if speed >= SLOW_MB_S else slow)


def gpus() -> Iterator[Finding]:
    """Ask torch what it sees; a machine without GPUs is well."""
    import torch

    if shutil.which("nvidia-smi") is None:
        yield Finding("GPUs", True, "none on this machine")
        return
    count = torch.cuda.device_count()
    lost = "nvidia-smi is there, torch sees none: its CUDA is newer than the driver"
    yield Finding("GPUs", count > 0, f"{count} seen by torch" if count else lost)
    nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
    absent = "not in this torch: trainings on GPUs need it"
    yield Finding("NCCL", nccl, "there" if nccl else absent)


def slurm(site: Site, folder: Path) -> Iterator[Finding]:
    """Ask the cluster for what the site's file names, and run one small job."""
    reached, told = _ask("sinfo", "-h", "-o", "%R|%G|%a")
    if not reached:
        yield Finding("SLURM", False, f"sinfo: {told}: run this where sbatch works")
        return
    yield Finding("SLURM", True, _ask("sinfo", "--version")[1])
    rows = [row.split("|") for row in told.splitlines()]
    partitions: dict[str, list[str]] = {}
    for name, gres, _ in rows:
        partitions.setdefault(name, []).append(gres)
    for name in filter(None, dict.fromkeys((site.partition, site.gpu_partition))):
        found = name in partitions
        missing = f"not among {sorted(partitions)}: mend the site's file"
        yield Finding(f"partition {name}", found, "there" if found else missing)
    yield from _gres(site, partitions)
    yield from _states(site)
    yield from _shared_folder(site, folder)


def _gres(site: Site, partitions: dict[str, list[str]]) -> Iterator[Finding]:
    wanted = [str(r["gres"]) for r in site.set_resources().values() if "gres" in r]
    where = site.gpu_partition or site.partition
    offered = [g for name, all_ in partitions.items() if where in (None, name) for g in all_]
    for gres in dict.fromkeys(wanted):
        kind, _, count = gres.rpartition(":")
        counts = [int(n) for g in offered for n in re.findall(rf"{kind}:(?:\w+:)?(\d+)", g)]
        well = max(counts, default=0) >= int(count)
        lacking = f"a node has at most {max(counts, default=0)}: mend gpus or trainings"
        yield Finding(f"gres {gres}", well, "there" if well else lacking)


def _states(site: Site) -> Iterator[Finding]:
    well, told = _ask(site.status, "-h" if site.status == "squeue" else "-n")
    advice = f"{told}: set `status: squeue` in the site's file"
    yield Finding(site.status, well, "answers" if well else advice)
    if site.status == "squeue":
        config = _ask("scontrol", "show", "config")[1]
        age = re.search(r"MinJobAge\s*=\s*(\d+)", config)
        seconds = int(age[1]) if age else 0
        enough = seconds >= 3 * site.first_check
        short = f"{seconds} s: set first_check to {seconds // 3} or less"
        yield Finding("MinJobAge", enough, f"{seconds} s" if enough else short)


def _shared_folder(site: Site, folder: Path) -> Iterator[Finding]:
    mark = folder / f".phenopipe-doctor-{os.getpid()}"
    mark.touch()
    flags = ["--time=2", "--mem=100", "--ntasks=1", "--immediate=60"]
    flags += [f"--account={site.account}"] if site.account else []
    flags += [f"--partition={site.partition}"] if site.partition else []
    well, told = _ask("srun", *flags, "ls", str(mark))
    mark.unlink()
    advice = f"{told}: run from a folder that compute nodes share"
    yield Finding("shared folder", well, "seen from a node" if well else advice)


def _ask(*command: str) -> tuple[bool, str]:
    """Run a command for a minute at most; its output, or the last line of its complaint."""
    if shutil.which(command[0]) is None:
        return False, f"no command {command[0]}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    except subprocess.TimeoutExpired:
        return False, "no answer in 90 s"
    said = (done.stdout if done.returncode == 0 else done.stderr or done.stdout).strip()
    return done.returncode == 0, said if done.returncode == 0 else said.split("\n")[-1]


def look(checks: Sequence[Callable[[], Iterator[Finding]]]) -> bool:
    """Print the findings of all checks; whether all are well."""
    well = True
    for check in checks:
        for one in check():
            well &= one.well
            sys.stdout.write(f"{'ok' if one.well else 'not ok':<7} {one.what:<32} {one.told}\n")
            sys.stdout.flush()
    return well


def main(argv: Sequence[str] | None = None) -> None:
    """Look at everything; the exit code is 1 if something is not well."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--slurm", action="store_true", help="look at the cluster too")
    parser.add_argument("--needs", type=float, default=10.0, metavar="GB", help="disk wanted")
    parser.add_argument("--directory", "-d", type=Path, default=Path(), help="of the run")
    args = parser.parse_args(argv)
    if not args.directory.is_dir():
        raise UserError(f"{args.directory}: no such folder")
    folder = args.directory.absolute()
    checks = [versions, lambda: disk(folder, args.needs), gpus]
    if args.slurm:
        checks.append(lambda: slurm(read_site(), folder))
    if not look(checks):
        sys.exit(1)


if __name__ == "__main__":
    run_step(main)
