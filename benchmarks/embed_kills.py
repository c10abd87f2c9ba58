"""Kill an embed job at random moments: what is read is whole, what is rerun is the same.

    python benchmarks/embed_kills.py [--kills 10] [--seed 0]

An experiment of 1,200 wells is embedded once; then, again and again, the same job is killed
(SIGKILL) at a random moment and run anew. After every kill a reader finds the whole store or
none; after every rerun the store is byte for byte the first one, and nothing lies beside it.
Prints one line a figure: name, figure, bound; exit code 1 if a bound is not kept.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from phenopipe.embed.config import PrepareKnobs
from phenopipe.embed.prepare import prepare_encoder
from phenopipe.embed.wells import main as embed
from phenopipe.encoders.folder import save_encoder
from phenopipe.errors import UserError
from phenopipe.formats.embeddings import read_block
from phenopipe.formats.images import IMAGES, write_images, write_pixels
from phenopipe.formats.wells import COLUMNS, WELLS, write_wells

N_WELLS = 1200


def make_experiment(folder: Path) -> None:
    """Write the files of one experiment and a small encoder."""
    ids = [f"w{row:04d}" for row in range(N_WELLS)]
    well = {**dict.fromkeys(COLUMNS), "role": "empty", "treatments": []}
    wells = [{**well, "well_id": one} for one in ids]
    write_wells(folder / "wells.parquet", pl.DataFrame(wells, schema=WELLS.empty().schema), {})
    image = dict.fromkeys(IMAGES.columns)
    images = [
        {**image, "image_id": f"{one}/1", "well_id": one, "index": row}
        for row, one in enumerate(ids)
    ]
    table = pl.DataFrame(images, schema=IMAGES.empty().schema)
    write_images(folder / "images.parquet", table, {})
    rng = np.random.default_rng(0)
    write_pixels(
        folder / "images.zarr",
        (rng.integers(0, 255, (2, 32, 32), dtype=np.uint8) for _ in ids),
        shape=(N_WELLS, 2, 32, 32),
        **{"channels": ["a", "b"], "dtype": "uint8", "stamp": {}},
    )
    tiny = {"patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
    knobs = PrepareKnobs(channels=("a", "b"), crop=32, model_args=tiny)
    save_encoder(folder / "encoder", prepare_encoder(knobs))


def run(folder: Path) -> None:
    """Embed the experiment, as the rule does."""
    embed(
        [
            *(f"--{name}={folder / name}.parquet" for name in ("wells", "images")),
            f"--pixels={folder}/images.zarr",
            f"--model={folder}/encoder/model.safetensors",
            f"--config={folder}/encoder/config.json",
            f"--embeddings={folder}/out/e.zarr",
            *("--screen=s", "--encoder=encoder", "--experiment=e", "--batch=16"),
        ]
    )


def read(folder: Path) -> None:
    """Read the store; torn or absent ones are refused, whole ones have every well."""
    try:
        block = read_block(folder / "out" / "e.zarr", 3)
    except UserError:
        assert not (folder / "out" / "e.zarr").exists(), "a torn store lies in its place"
    else:
        assert block.shape == (N_WELLS, 32) and np.isfinite(block).all()


def start(work: Callable[[Path], None], folder: Path) -> int:
    """Begin some work in a process of its own, all imports done."""
    child = os.fork()
    if child:
        return child
    try:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
            work(folder)
    except BaseException:  # the parent learns of it by the exit status
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def done(child: int) -> bool:
    """Whether a process ended well."""
    return os.waitpid(child, 0)[1] == 0


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def main() -> int:
    """Print the figures; 1 if a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    draw = random.Random(given.seed)
    counts = dict.fromkeys(("whole reads", "same bytes", "nothing beside", "half written"), 0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store = folder / "out" / "e.zarr"
        assert done(start(make_experiment, folder)) and done(start(run, folder))
        begun = time.perf_counter()
        shutil.rmtree(store)
        assert done(start(run, folder))
        seconds = time.perf_counter() - begun
        first = content(store)
        for _ in range(given.kills):
            shutil.rmtree(store, ignore_errors=True)
            child = start(run, folder)
            time.sleep(draw.uniform(0.05, 1.0) * seconds)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            counts["half written"] += bool([*store.parent.glob(".*.part")])
            counts["whole reads"] += done(start(read, folder))
            assert done(start(run, folder))
            counts["same bytes"] += content(store) == first
            counts["nothing beside"] += [*store.parent.iterdir()] == [store]
    for name in ("whole reads", "same bytes", "nothing beside"):
        print(f"{name} after kills: {counts[name]} of {given.kills} (bound {given.kills})")
    print(f"kills in the middle of writing: {counts.pop('half written')} of {given.kills}")
    return 0 if set(counts.values()) == {given.kills} else 1


if __name__ == "__main__":
    sys.exit(main())
