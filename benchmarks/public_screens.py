"""Every public layout through the whole workflow: small trees, all stages, a small encoder.

    python benchmarks/public_screens.py [--cores 2] [--source jump ...] [--folder FOLDER]

For each source a tree of two experiments in exactly that layout, known faults included (an
absent plate, a truncated image), is made as ``tests/screen/public.py`` makes it and run through
``all``: untrained and trained encoder, curation, alignment, benchmark, report. One line a
source; exit code 1 if one does not end with a report, or its faults are not told of.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.screen import public

ROOT = Path(__file__).parents[1]
TINY = {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
MAE = {"dim": 16, "depth": 2, "heads": 2, "patch": 4, "decoder_dim": 8, "decoder_depth": 1}
MAE |= {"decoder_heads": 2, "updates": 8, "batch": 4, "held_out": 2}
OWN_TABLE = {
    "columns": {
        **{name: name for name in ("plate", "well", "role")},
        "cell_type": {"constant": "A549"},
        "treatments": [{"perturbation": "compound", "kind": {"constant": "compound"}}],
    },
    "roles": {"negative_control": ["ctrl"], "perturbation": ["trt"]},
    "untreated": ["DMSO"],
    "tables": ["screen/wells.csv"],
    "channels": ["DNA", "Mito"],
}
SCALING = {"scaling": {"method": "percentiles", "control_sites": 4}}
IN_PLACE = {"decode": "in_place"}
SOURCES = {
    "rxrx1": (public.rxrx1, ["HUVEC-01", "RPE-02"], {}, "B03_s1_w1.png"),
    "rxrx3": (public.rxrx3, ["gene-001", "compound-001"], SCALING, "A02_s1_w1.png"),
    "rxrx3_core": (public.rxrx3_core, ["gene-001", "compound-001"], IN_PLACE, None),
    "jump": (public.jump, ["Run1", "Run2"], SCALING, "CP-1_A02_T0001F001L01A03Z01C03.tif"),
    "ome_zarr": (
        lambda folder: public.ome_zarr(folder, "0.4"),
        ["week-1", "week-2"],
        {**OWN_TABLE, **SCALING},
        None,
    ),
}


def configuration(source, experiments, settings):
    """A whole run of one screen: two encoders, curation, alignment, magnitude."""
    screen = {"source": source, "path": "screen", "max_unreadable": 0.3, **settings}
    every = ["untrained", "mae"]
    undersample = {"min_experiments": 1, "min_wells": 1}
    undersample |= {"keep_negative_controls": 1, "keep_positive_controls": 1}
    return {
        "screens": {"screen": {**screen, "experiments": {name: {} for name in experiments}}},
        "encoders": {
            "untrained": {"kind": "timm", "crop": 16, "model_args": TINY},
            "mae": {"kind": "mae", "manifest": "all", "crop": 16, **MAE},
        },
        "manifests": {"all": {"screens": ["screen"], "undersample": undersample}},
        "benchmarks": {
            "map": {
                "screen": "screen",
                "encoders": every,
                "magnitude": {"null_draws": 20, "min_wells": 2},
            },
        },
        "align": {"fit": {"method": "none"}},
        # Wells of noise are no screen: what they look like is not the question here.
        "qc": {
            "check": {f"max_{level}s": 1.0 for level in ("image", "well", "plate")},
            "wells": {"enabled": False},
        },
    }


def run(source, folder, cores):
    """Make the tree, damage one image, run ``all``; wells and whether faults were told."""
    make, experiments, settings, damaged = SOURCES[source]
    screen = folder / "screen"
    screen.mkdir(parents=True)
    make(screen)
    if damaged:
        path = next(screen.rglob(damaged))
        path.write_bytes(path.read_bytes()[:-40])
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(configuration(source, experiments, settings)))
    flags = ["--configfile", config, "--config", f"data={folder}", "-d", folder / "run"]
    done = subprocess.run(
        ["snakemake", "-s", ROOT / "Snakefile", "--cores", str(cores), *flags, "all"],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        return done.stdout[-3000:] + done.stderr[-3000:]
    results = folder / "run/results"
    if not (results / "report/index.html").exists():
        return "no report"
    wells = pl.read_parquet(results / "screen/screen/*/wells.parquet").height
    logs = "".join(p.read_text() for p in (folder / "run/logs/screen/images").rglob("*.log"))
    if damaged and f"{damaged}: cannot be decoded" not in logs:
        return f"the truncated image is not told of:\n{logs}"
    return wells


def main() -> int:
    """One line a source; 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--source", nargs="*", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    failed = 0
    for source in given.source:
        with tempfile.TemporaryDirectory(dir=given.folder) as name:
            start = time.perf_counter()
            found = run(source, Path(name), given.cores)
            seconds = time.perf_counter() - start
        failed += isinstance(found, str)
        told = f"failed: {found}" if isinstance(found, str) else f"{found} wells, a report"
        print(f"{source}: {told} ({seconds:.0f} s)", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
