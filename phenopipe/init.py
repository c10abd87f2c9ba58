"""Write a configuration for a lab's own table, and check it against the table's files.

    python -m phenopipe.init TABLE --output mine.yaml

TABLE has one row a site (a column of files for each channel), one row a site and channel (a
column of files and one of channels), or one row a well with features. What each column means is
guessed from its name and what it holds; every guess is a line of the configuration, to be
mended there. ``--check`` looks again after that.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from phenopipe.config import load_config
from phenopipe.entries import STEP_OF_SOURCE
from phenopipe.errors import UserError, reason
from phenopipe.formats.atomic import atomic
from phenopipe.formats.tables import read_any
from phenopipe.guess import Guess, guess
from phenopipe.knobs import run_step
from phenopipe.screen.columns import read_rows
from phenopipe.screen.config import ImagesKnobs, ProfilesKnobs
from phenopipe.screen.decoder import look_at_all
from phenopipe.screen.images import list_table
from phenopipe.screen.profiles import gather

PAGE = """\
# {table}: written by python -m phenopipe.init, to be read and mended by you.
#
#   python -m phenopipe.init {table} --check {output}
#   snakemake all --profile local --configfile {output}
#
# What was guessed:
{guesses}

seed: 0
data: {data}

{screens}
{rest}"""
IMAGES = """\
encoders:
  # Means and deviations of the pixels, and a network that has learned nothing: what any encoder
  # must beat.
  pixels: {kind: pixels}
  untrained: {kind: timm}
  # One that learns from these images; a GPU makes it quick. preset: B/16, L/8, G/8 are larger.
  # mae: {kind: mae, manifest: everything, preset: S/16, epochs: 100, batch: 256}

manifests:
  everything: {screens: [SCREEN]}

benchmarks:
  # Add encoders here as they come; docs/screens.md and workflow_config.yaml show probes,
  # judges and curated manifests.
  map: {screen: SCREEN, encoders: [pixels, untrained],REPLICATES magnitude: {}}

align:
  # Large screens with dozens of controls an experiment have tvn.
  fit: {method: pca}
"""
PROFILES = """\
encoders:
  features: {kind: profiles}

benchmarks:
  map: {screen: SCREEN, encoders: [features],REPLICATES magnitude: {}}

align:
  fit: {method: pca}
"""


def page_of(guessed: Guess, table: Path, output: Path, screen: str) -> str:
    """Write the configuration of a table: its screen, and what a first run needs."""
    dumped = yaml.safe_dump(
        {"screens": {screen: guessed.screen}},
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=96,
    )
    rest = IMAGES if guessed.screen["source"] == "images" else PROFILES
    return PAGE.format(
        table=table.name,
        output=output,
        data=table.parent,
        guesses="\n".join(f"#   {line}" for line in guessed.told),
        screens=dumped,
        rest=rest.replace("SCREEN", screen).replace(
            "REPLICATES", " replicates: {}," if guessed.repeated else ""
        ),
    )


def check(raw: Mapping[str, Any]) -> list[str]:
    """Read every experiment's wells and look at its files, without decoding any.

    Returns
    -------
    list of str
        A line for each experiment: plates, wells of each role, conditions, files.

    Raises
    ------
    UserError
        If the configuration, the table or too many of its files are not as they should be.
    """
    config = load_config(raw)
    told = []
    for name, screen in config.screens.items():
        rows = read_rows([Path(config.data) / table for table in screen.tables])
        for experiment in config.experiments(name):
            knobs = config.knobs(
                "screen", STEP_OF_SOURCE[screen.source], screen=name, experiment=experiment
            )
            if isinstance(knobs, ImagesKnobs):
                root = Path(knobs.root or Path(config.data) / Path(screen.tables[0]).parent)
                one = list_table(rows, knobs, root, screen=name, experiment=experiment)
                told.append(f"{experiment}: {_wells(one.wells)}, {_files(one.files, root)}")
            elif isinstance(knobs, ProfilesKnobs):
                wells, profiles = gather(rows, knobs, screen=name, experiment=experiment)
                told.append(f"{experiment}: {_wells(wells)}, {profiles.width - 1} features")
    return told


def _wells(wells: pl.DataFrame) -> str:
    roles = dict(wells["role"].value_counts().sort("role").iter_rows())
    applied = wells["treatments"].explode(empty_as_null=False).struct.unnest()
    conditions = applied.select("perturbation", "concentration_um").n_unique()
    counted = ", ".join(f"{n} {role.replace('_', ' ')}" for role, n in roles.items())
    plates = wells["plate"].n_unique()
    if "negative_control" not in roles:
        counted += " (no negative control: alignment needs some)"
    return f"{plates} plates, {wells.height} wells ({counted}), {conditions} conditions"


def _files(files: pl.DataFrame, root: Path) -> str:
    found = look_at_all(files, root)
    faults = {name: one.fault for name, one in found.items() if one.fault}
    sizes = {(one.height, one.width, one.dtype) for one in found.values() if not one.fault}
    if not sizes:
        name, fault = next(iter(faults.items()))
        raise UserError(f"none of {len(found)} files can be read, the first: {name}: {fault}")
    shape = " and ".join(f"{h} x {w} {dtype}" for h, w, dtype in sorted(sizes))
    lost = f", {len(faults)} of them unreadable: {next(iter(faults))}" if faults else ""
    return f"{len(found)} files of {shape}{lost}"


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def main(argv: Sequence[str] | None = None) -> None:
    """Write or check a configuration."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("table", type=Path, help="CSV, TSV or parquet")
    parser.add_argument("--output", type=Path, default=Path("mine.yaml"))
    parser.add_argument("--screen", default="mine", help="name of the screen")
    parser.add_argument("--check", type=Path, metavar="FILE", help="a configuration to check")
    given = parser.parse_args(argv)
    if not given.table.exists():
        raise UserError(f"{given.table}: no such file, wanted a table of wells")
    output = given.check or given.output
    if not given.check:
        if output.exists():
            raise UserError(f"{output} exists, wanted another --output, or --check {output}")
        guessed = guess(read_any(given.table), given.table.name)
        with atomic(output) as temporary:
            temporary.write_text(page_of(guessed, given.table, output, given.screen))
        print(f"{output} written; what was guessed:")
        _say(f"  {line}" for line in guessed.told)
    try:
        raw = yaml.safe_load(output.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{output}: {reason(error)}") from None
    _say(check(raw))
    print(f"next: snakemake all --profile local --configfile {output}", file=sys.stderr)


if __name__ == "__main__":
    run_step(main)
