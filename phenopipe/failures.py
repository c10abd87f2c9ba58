"""What failed in a run, told when it ends: read from Snakemake's log and the jobs' own.

Part of the roof; the Snakefile's ``onerror`` calls it.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shlex import join

# Flags that say which run it was; what else was asked for belongs to that run only.
ONE = ("--profile", "--workflow-profile", "--directory", "-d", "--snakefile", "-s")
MANY = ("--configfile", "--configfiles", "--config")
_RULE = re.compile(r"^(?:Error in rule| {8}rule) (\w+)[:,]")
_LOG = re.compile(r"^ +log: (.*) \(check log file\(s\) for error details\)$")
_STATUS = re.compile(r"SLURM status is: '(\w+)'")
_COMPLAINT = re.compile(r"^(?:error: .+|[\w.]*(?:Error|Exception|Interrupt)\b.*)$")


@dataclass
class Failure:
    """One job that failed and was not mended by a retry."""

    rule: str
    outputs: list[str] = field(default_factory=list)
    log: str | None = None
    message: str = ""

    @property
    def stage(self) -> str:
        """Stage of the rule."""
        return self.rule.partition("_")[0]

    @property
    def step(self) -> str:
        """Step of the rule."""
        return self.rule.partition("_")[2]

    @property
    def names(self) -> str:
        """Wildcards of the job, as its log file carries them."""
        path = Path(self.log or "").with_suffix("")
        # logs/<stage>/<step>/<names>, in the order of the rule's pattern
        return " ".join(path.parts[3:])

    @property
    def reason(self) -> str:
        """One line: what the job said last, or what became of it."""
        status = _STATUS.search(self.message)
        if status and status[1] != "FAILED":
            return f"SLURM: {status[1]}"
        path = Path(self.log) if self.log else None
        lines = path.read_text(errors="replace").splitlines() if path and path.is_file() else []
        told = [line.strip() for line in lines if line.strip()]
        complaints = [line for line in told if _COMPLAINT.match(line)]
        return (complaints or told or ["ended before it said anything"])[-1]


def read_failures(text: str) -> list[Failure]:
    """Read the failed jobs from Snakemake's log, the last attempt of each.

    Jobs whose outputs are there were mended by a later attempt.
    """
    found: dict[tuple[str, ...], Failure] = {}
    current, message = None, ""
    for line in text.splitlines():
        if line.startswith("Error in "):
            message = ""
        if rule := _RULE.match(line):
            current = Failure(rule[1], message=message)
        elif line.startswith("    message: "):
            message = line.removeprefix("    message: ")
            if current:
                current.message = message
        elif current and line.lstrip().startswith("output: "):
            current.outputs = line.split("output: ", 1)[1].split(", ")
        elif current and (log := _LOG.match(line)):
            current.log = log[1].split(", ")[0]
            found[tuple(current.outputs)] = current
        elif not line.startswith(" "):
            current = None
    return [one for one in found.values() if not all(Path(p).exists() for p in one.outputs)]


def again(argv: Sequence[str], target: str) -> str:
    """Write the command that redoes one output the way the run was started.

    Examples
    --------
    >>> again(["--profile", "slurm", "-n", "all"], "results/x")
    'snakemake --profile slurm results/x'
    """
    kept: list[str] = []
    room = 0
    for word in argv:
        if word.startswith("-"):
            name, equals, _ = word.partition("=")
            many = name in MANY
            wanted = name in ONE or many
            room = 0 if equals or not wanted else len(argv) if many else 1
            kept += [word] if wanted else []
        elif room:
            kept.append(word)
            room -= 1
    # A list of values would take the target for one more.
    listed = any(word in MANY for word in kept)
    return join(["snakemake", target, *kept] if listed else ["snakemake", *kept, target])


def table(failures: Sequence[Failure], argv: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the table of failures."""
    plural = "job" if len(failures) == 1 else "jobs"
    yield f"{len(failures)} {plural} failed; what depends on them was not made:"
    for one in failures:
        yield ""
        yield f"{one.stage} {one.step}  {one.names}"
        yield f"    reason  {one.reason[:300]}"
        yield f"    log     {one.log}"
        yield f"    again   {again(argv, one.outputs[0])}"
    yield ""
    yield "To go on without an experiment, name it in `without` of its screen."


def tell_failures(logs: Sequence[str]) -> None:
    """Print what failed in a run whose logs Snakemake names."""
    text = "\n".join(Path(log).read_text(errors="replace") for log in logs)
    failures = read_failures(text)
    if failures:
        sys.stderr.write("\n".join(["", *table(failures, sys.argv[1:]), "", ""]))
