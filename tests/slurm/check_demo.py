"""`snakemake --profile slurm all` on two nodes makes what one machine makes, byte for byte."""

import subprocess
import time
from pathlib import Path

from phenopipe.formats.fingerprint import fingerprint

ROOT = Path(__file__).parents[2]
DEMO = Path(__file__).with_name("demo.yaml")


def made(folder):
    """Fingerprints of all results but the states of trainings, which nothing reads."""
    results = folder / "results"
    stores = {p.parent for p in results.rglob("zarr.json")}
    whole = {p for p in stores if not stores & set(p.parents)}
    files = (p for p in results.rglob("*") if p.is_file() and "checkpoints" not in p.parts)
    single = {p for p in files if not whole & set(p.parents)}
    return {str(p.relative_to(folder)): fingerprint(p) for p in sorted(whole | single)}


def test_two_nodes_make_what_one_machine_makes(cluster, copy, run, finish):
    here, there = copy("here", DEMO), copy("there", DEMO)
    started = time.monotonic()
    local = run(here, "snakemake --profile local all")
    slurm = run(there, "snakemake --profile slurm all")
    finish(slurm, there)
    seconds = time.monotonic() - started
    finish(local, here)
    assert (there / "results" / "report" / "index.html").is_file()
    assert made(there) == made(here)
    jobs = sorted((there / "logs" / "provenance").rglob("*.json"))
    assert jobs and all('"job": "' in p.read_text() for p in jobs)
    nodes = subprocess.run(
        ["sinfo", "-h", "-N", "-o", "%N"], capture_output=True, text=True, check=True
    )
    print(f"{len(made(there))} results, {seconds:.0f} s on {nodes.stdout.split()}")
