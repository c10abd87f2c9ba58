"""Step ``fetch``: a part of a public screen, from where it is published to the data folder.

Nothing else in the workflow downloads, and only the target ``fetch`` asks for it. Memory: one
piece (``piece_mb``) a connection.
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.fetched import FETCHED
from phenopipe.formats.tables import read_any, write_table
from phenopipe.formats.wells import parse_well
from phenopipe.knobs import parse_step, run_step
from phenopipe.screen.fetch_config import FetchKnobs
from phenopipe.screen.transfer import Brought, Home, Remote, bring_all, expanded

MB, GB = 10**6, 10**9


def plan(home: Home, knobs: FetchKnobs) -> list[Remote]:
    """List the files that the knobs ask for, each once.

    Raises
    ------
    UserError
        If one is not there, or all together are more than ``max_gb`` or the room on disk.
    """
    addresses = [parse_well(well) for well in knobs.wells]
    words = {
        "experiment": knobs.experiments,
        "plate": knobs.plates,
        "well": knobs.wells,
        "row": list(dict.fromkeys(f"{row:02d}" for row, _ in addresses)),
        "column": list(dict.fromkeys(f"{column:02d}" for _, column in addresses)),
        "channel": knobs.channels,
        "part": knobs.parts,
    }
    names = dict.fromkeys(n for pattern in knobs.files for n in expanded(pattern, words))
    with ThreadPoolExecutor(home.at_once(knobs.connections)) as pool:
        found = {one.path: one for several in pool.map(home.found, names) for one in several}
    size = sum(one.size or 0 for one in found.values())
    told = f"{len(found)} files, {size / GB:.3f} GB"
    print(f"{home.url}: {told}", flush=True)
    if size > knobs.max_gb * GB:
        raise UserError(f"{home.url}: {told}, more than max_gb = {knobs.max_gb:g}")
    folder = Path(knobs.folder)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise UserError(f"{folder}: {free / GB:.3g} GB free, wanted {told}")
    return list(found.values())


def read_digests(table: Path | None) -> dict[str, str]:
    """Read which SHA-256 each path must have.

    Raises
    ------
    UserError
        If a column is absent.
    """
    if table is None:
        return {}
    rows = read_any(table)
    for name in ("path", "sha256"):
        if name not in rows.columns:
            raise UserError(f"{table}: no column {name!r}, wanted path and sha256")
    return dict(rows.select("path", "sha256").iter_rows())


def fetch(knobs: FetchKnobs, digests: dict[str, str]) -> list[Brought]:
    """Bring what the knobs ask for.

    Raises
    ------
    UserError
        If any file could not be brought; the others lie in their places by then.
    """
    home = Home(knobs.home, endpoint=knobs.endpoint, tries=knobs.tries, pause_s=knobs.pause_s)
    wanted = plan(home, knobs)
    brought, failed = bring_all(
        home,
        wanted,
        Path(knobs.folder),
        digests,
        connections=knobs.connections,
        piece=round(knobs.piece_mb * MB),
    )
    for line in failed:
        print(line, flush=True)
    if failed:
        raise UserError(
            f"{home.url}: {len(failed)} of {len(wanted)} files were not brought, the first:"
            f" {failed[0]}; the same command goes on"
        )
    return brought


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``screen_fetch``."""
    files, knobs = parse_step(
        FetchKnobs,
        inputs=["checksums?"],
        outputs=["fetched"],
        names=["screen"],
        doc=__doc__,
        argv=argv,
    )
    brought = fetch(knobs, read_digests(files.checksums))
    rows = [(b.path, b.size, b.sha256, b.checked) for b in brought]
    schema = {name: dtype for name, (dtype, _) in FETCHED.columns.items()}
    table = pl.DataFrame(rows, schema=schema, orient="row").sort("path")
    write_table(files.fetched, table, FETCHED, files.stamp)


if __name__ == "__main__":
    run_step(main)
