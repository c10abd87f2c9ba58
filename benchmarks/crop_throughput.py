"""Random crops a second: indexing into ``images.zarr`` against packing the chosen sites.

    python benchmarks/crop_throughput.py --folder build/crops

Writes sites as a screen has them (512 x 512 pixels, 6 channels, 8 bits), of which a manifest
keeps one in six, and reads random crops of 256 pixels: through the store that the screen
stage wrote and the code that trainings use, and from copies of the kept sites: an
uncompressed array that is mapped into memory, and stores with and without compression.
Cold means that the kernel was told to forget the files. Prints one line a figure; medians.
"""

import argparse
import os
import shutil
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import zarr

from phenopipe.formats.images import open_pixels, write_pixels
from phenopipe.pretrain.sites import Sites
from phenopipe.pretrain.stream import random_crop
from phenopipe.screen.cells import AXES, render_cells
from phenopipe.screen.optics import digitize, draw_microscope, expose

SIZE, CHANNELS, CROP = 512, 6, 256
KEPT = 6


def rendered(n_sites):
    """Yield sites of simulated cells: a few scenes, each site with noise of its own."""
    rng = np.random.default_rng(0)
    camera = draw_microscope(rng, CHANNELS, 0.0, 150.0)
    n_cells = round(2.8 * (SIZE / 32) ** 2)
    scenes = [
        render_cells(np.zeros(len(AXES)), n_cells, SIZE, rng, cell_spread=0.5) for _ in range(4)
    ]
    for site in range(n_sites):
        yield digitize(expose(scenes[site % len(scenes)], camera, rng))


class Mapped:
    """Sites in one uncompressed array that is mapped into memory."""

    def __init__(self, path):
        self._sites = np.load(path, mmap_mode="r")

    def pixels(self, site):
        """Return a site without reading it: only what is cut from it is read."""
        return self._sites[site]


def sites_of(path, kept):
    """Return the kept sites of a store as trainings address them."""
    table = pl.DataFrame({"store": [0] * len(kept), "index": kept})
    return Sites(table, [open_pixels(path)], [list(range(CHANNELS))], [])


def forget(folder):
    """Tell the kernel to drop the pages of all files of a folder, or of one file."""
    for path in [folder] if folder.is_file() else folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def crops_a_second(source, order, workers):
    """Read one random crop of each site in an order, copied as a batch would."""

    def read(at):
        rng = np.random.default_rng(at)
        cut = random_crop(source.pixels(int(order[at])), CROP, rng, flips=True)
        return int(np.ascontiguousarray(cut)[0, 0, 0])

    begin = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(read, range(len(order))))
    return len(order) / (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("build/crops"))
    parser.add_argument("--sites", type=int, default=900)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args()
    shutil.rmtree(chosen.folder, ignore_errors=True)
    chosen.folder.mkdir(parents=True)
    n_sites, shape = chosen.sites, (CHANNELS, SIZE, SIZE)
    names = [str(channel) for channel in range(CHANNELS)]
    whole = chosen.folder / "images.zarr"
    write_pixels(
        whole,
        rendered(n_sites),
        shape=(n_sites, *shape),
        channels=names,
        dtype="uint8",
        stamp={},
    )
    kept = np.sort(np.random.default_rng(1).permutation(n_sites)[: n_sites // KEPT])
    packed, mapped = chosen.folder / "packed.zarr", chosen.folder / "packed.npy"
    plain = chosen.folder / "plain.zarr"
    pixels = np.stack([open_pixels(whole)[int(site)] for site in kept])
    write_pixels(
        packed, iter(pixels), shape=pixels.shape, channels=names, dtype="uint8", stamp={}
    )
    np.save(mapped, pixels)
    store = zarr.create_array(
        str(plain), shape=pixels.shape, dtype="uint8", chunks=(1, *shape), compressors=None
    )
    store[:] = pixels
    store.attrs["fingerprint"] = "plain"
    every = np.arange(len(kept))
    sources = {
        "index into images.zarr": (whole, sites_of(whole, kept)),
        "packed, zstd": (packed, sites_of(packed, every)),
        "packed, no compression": (plain, sites_of(plain, every)),
        "packed, memory map": (mapped, Mapped(mapped)),
    }
    rates = {name: {} for name in sources}
    for _ in range(chosen.repeats):
        order = np.random.default_rng().permutation(len(kept))
        for name, (path, source) in sources.items():
            for state in ("cold", "warm"):
                for workers in (1, 2):
                    if state == "cold":
                        forget(path)
                    rate = crops_a_second(source, order, workers)
                    rates[name].setdefault((state, workers), []).append(rate)
    for name, (path, _) in sources.items():
        files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
        sites = n_sites if path == whole else len(kept)
        megabytes = sum(one.stat().st_size for one in files) / sites / 1e6
        print(f"{name}: {megabytes:.2f} MB a site on disk")
        for (state, workers), found in rates[name].items():
            rate = statistics.median(found)
            print(f"{name}: {state}, {workers} threads: {rate:.0f} crops/s")


if __name__ == "__main__":
    main()
