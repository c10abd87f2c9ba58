"""What a run would do before it does it: jobs, why, hours, disk, stage by stage.

    python -m phenopipe.plan --profile slurm all

Every flag goes to Snakemake, which is asked for a dry run. Hours are those of past jobs of
the same step in this folder (``logs/benchmarks``) times the jobs to come, disk is what such
jobs made; a step without a past says so and is left out of the sums.
"""

import argparse
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from phenopipe.errors import UserError
from phenopipe.knobs import run_step
from phenopipe.records import Run
from phenopipe.steps import STEPS

# Why Snakemake runs a job, told shortly; the first that fits.
REASONS = {
    "Forced": "asked for",
    "Missing output": "not made yet",
    "Params have changed": "knobs or code changed",
    "Code has changed": "the rule changed",
    "Set of input files has changed": "other inputs",
    "Updated input files": "inputs changed",
    "Input files updated by another job": "follows another job",
    "Software environment": "environment changed",
}
_BLOCK = re.compile(r"^(?: {4})?(?:local)?rule (\w+):$", re.MULTILINE)


@dataclass
class Planned:
    """All jobs of one step."""

    stage: str
    step: str
    reasons: Counter[str] = field(default_factory=Counter)
    threads: int = 1
    gpus: int = 0

    @property
    def jobs(self) -> int:
        """How many."""
        return sum(self.reasons.values())


def read_dry_run(printed: str) -> list[Planned]:
    """Gather the jobs that a dry run printed by step, in the order of the stages."""
    found: dict[tuple[str, str], Planned] = {}
    pieces = _BLOCK.split(printed)[1:]
    for rule, block in zip(pieces[::2], pieces[1::2], strict=True):
        stage, _, step = rule.partition("_")
        if step not in STEPS.get(stage, {}):
            continue
        one = found.setdefault((stage, step), Planned(stage, step))
        one.reasons[_reason(block)] += 1
        told = dict(re.findall(r"(\w+)=([^\s,]+)", _line(block, "resources")))
        cores = told.get("cpus_per_task", _line(block, "threads") or "1")
        nodes = int(told.get("nodes", "1"))
        one.threads = max(one.threads, int(cores) * nodes)
        gpus = re.search(r"gpu:(?:[^:]+:)?(\d+)$", told.get("gres", ""))
        one.gpus = max(one.gpus, int(gpus[1]) * nodes if gpus else 0)
    order = [(stage, step) for stage, steps in STEPS.items() for step in steps]
    return [found[key] for key in order if key in found]


def table(
    planned: Sequence[Planned],
    seconds: Mapping[str, float],
    sizes: Mapping[str, float],
    memory: Mapping[str, float],
    here: float = 0.0,
) -> Iterator[str]:
    """Yield the lines of the plan and its sums."""
    head = ("step", "jobs", "CPU hours", "GPU hours", "disk GB", "memory GB", "why")
    rows: list[Sequence[str]] = [head]
    sums = [0.0, 0.0, 0.0]
    unknown = 0
    for one in planned:
        name = f"{one.stage}.{one.step}"
        why = ", ".join(f"{reason} {count}" for reason, count in one.reasons.most_common())
        if name not in seconds:
            unknown += 1
            rows.append((name, str(one.jobs), "?", "?", "?", "?", why))
            continue
        hours = one.jobs * seconds[name] / 3600
        disk = one.jobs * sizes.get(name, 0.0) / 1e9
        mine = (hours * one.threads, hours * one.gpus, disk)
        sums = [a + b for a, b in zip(sums, mine, strict=True)]
        told = [f"{number:.3f}" for number in mine]
        rows.append((name, str(one.jobs), *told, f"{memory.get(name, 0) / 1e3:.1f}", why))
    total = str(sum(one.jobs for one in planned))
    rows.append(("all", total, *(f"{number:.3f}" for number in sums), "", ""))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:6], widths[1:6], strict=True)]
        yield "  ".join([*cells, row[6]]).rstrip()
    if unknown:
        yield f"{unknown} steps have no past here (?) and are not in the sums"
    peak = here / 1e9 + sums[2]
    yield f"peak disk {peak:.3f} GB: {here / 1e9:.3f} here, the rest to come"


def dry_run(flags: Sequence[str]) -> str:
    """Return what Snakemake's dry run prints.

    Raises
    ------
    UserError
        With the last lines of what it said, if it refuses.
    """
    command = [sys.executable, "-m", "snakemake", *flags, "--dry-run"]
    if not any(flag.split("=")[0] in ("--profile", "--cores", "-c") for flag in flags):
        command += ["--cores", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise UserError("; ".join(said[-3:]) or "Snakemake's dry run failed")
    return done.stdout + done.stderr


def where(flags: Sequence[str]) -> Path:
    """Return the folder that Snakemake runs in."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-d", "--directory", type=Path, default=Path())
    return Path(parser.parse_known_args(flags)[0].directory)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the plan of a run."""
    flags = list(sys.argv[1:] if argv is None else argv)
    if set(flags) & {"-h", "--help"}:
        sys.stdout.write(f"{__doc__}\n")
        return
    planned = read_dry_run(dry_run(flags))
    if not planned:
        sys.stdout.write("nothing to do\n")
        return
    run = Run(where(flags))
    past = (run.seconds(), run.bytes_made(), run.memory_mb(), run.bytes_here())
    for line in table(planned, *past):
        sys.stdout.write(f"{line}\n")


def _line(block: str, name: str) -> str:
    found = re.search(rf"^ +{name}: (.*)$", block, re.MULTILINE)
    return found[1] if found else ""


def _reason(block: str) -> str:
    told = _line(block, "reason")
    return next((short for long, short in REASONS.items() if long in told), told or "unknown")


if __name__ == "__main__":
    run_step(main)
