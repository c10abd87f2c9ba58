"""Where a result comes from: the tree of inputs, knobs, code, versions, hosts and times.

    python -m phenopipe.lineage results/report/truth.parquet
    python -m phenopipe.lineage results/A --against other/run/results/A

Inputs are found by their content: a job's record names digests, and the job that wrote
such a digest is the one before it. A file that changed since has another digest, and no
maker. Two results are compared job by job, from the result back to where they part.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from phenopipe.errors import UserError
from phenopipe.knobs import run_step
from phenopipe.records import Job, Run

INDENT = "  "


def tell(run: Run, path: Path) -> Iterator[str]:
    """Yield the lines of the tree of one result.

    Raises
    ------
    UserError
        If no job recorded this content.
    """
    digest, job = _made(run, path)
    yield from _branch(run, job, str(path), digest, "", set())


def _branch(
    run: Run, job: Job | None, path: str, digest: str, indent: str, told: set[str]
) -> Iterator[str]:
    if job is None:
        yield f"{indent}{path}  {digest}  from outside"
        return
    yield f"{indent}{path}  {digest}  {describe(job)}"
    if digest in told:
        if job.inputs:
            yield f"{indent}{INDENT}(as above)"
        return
    told.add(digest)
    if job.knobs:
        yield f"{indent}{INDENT}knobs {json.dumps(job.knobs, sort_keys=True)}"
    for name, digests in job.inputs.items():
        for one in digests:
            found = run.maker(one)
            where, before = found or (f"({name})", None)
            yield from _branch(run, before, where, one, indent + INDENT, told)


def describe(job: Job) -> str:
    """Say in one line who made something, with what code, where and when."""
    facts = [job.step, f"version {job.version}", f"code {job.source or 'unrecorded'}"]
    facts += [f"{name} {version}" for name, version in job.packages.items()]
    facts.append(f"host {job.host}")
    if job.job:
        facts.append(f"job {job.job}")
    if job.seconds is not None:
        facts.append(f"{job.seconds:.1f} s")
    return ", ".join(facts)


def compare(one: Run, path: Path, other: Run, other_path: Path) -> Iterator[str]:
    """Yield where two results part: jobs whose knobs, code or inputs from outside differ."""
    digest, job = _made(one, path)
    other_digest, other_job = _made(other, other_path)
    if digest == other_digest:
        yield f"the same content: {digest}"
        return
    yield f"{path} {digest} against {other_path} {other_digest}"
    yield from _difference(one, job, other, other_job, set())


def _difference(
    one: Run, job: Job, other: Run, against: Job, seen: set[tuple[str, str]]
) -> Iterator[str]:
    where = " ".join([job.step, *job.names.values()])
    key = (where, " ".join([against.step, *against.names.values()]))
    if key in seen:
        return
    seen.add(key)
    if job.step != against.step:
        yield f"{where}: made by {job.step} here and {against.step} there"
        return
    for name in ("version", "source", "packages"):
        here, there = getattr(job, name), getattr(against, name)
        if here != there:
            yield f"{where}: {name} {here} here and {there} there"
    yield from (f"{where}: {line}" for line in _knobs(job.knobs, against.knobs))
    for name in job.inputs:
        theirs = against.inputs.get(name, [])
        ours = job.inputs[name]
        if len(ours) != len(theirs):
            yield f"{where}: {len(ours)} files of {name} here and {len(theirs)} there"
        for mine, its in zip(ours, theirs, strict=False):
            if mine == its:
                continue
            before, before_other = one.maker(mine), other.maker(its)
            if before and before_other:
                yield from _difference(one, before[1], other, before_other[1], seen)
            else:
                yield f"{where}: {name} from outside is {mine} here and {its} there"


def _knobs(here: dict[str, Any], there: dict[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*here, *there]):
        if here.get(name) != there.get(name):
            yield f"knob {name} is {here.get(name)!r} here and {there.get(name)!r} there"


def _made(run: Run, path: Path) -> tuple[str, Job]:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    digest, job = run.made(path)
    if job is None:
        raise UserError(
            f"{path}: no job recorded this content ({digest}); changed since, or from outside"
        )
    return digest, job


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tree, or the differences."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, help="a file or store under results/")
    parser.add_argument("--against", type=Path, help="the same result of another run")
    args = parser.parse_args(argv)
    run = Run.of(args.file)
    if args.against is None:
        lines = tell(run, args.file)
    else:
        lines = compare(run, args.file, Run.of(args.against), args.against)
    for line in lines:
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    run_step(main)
