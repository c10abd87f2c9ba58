"""Public layouts to images.zarr: how fast, against a plain loop; in how much memory.

    python benchmarks/convert_speed.py [--pairs 3] [--folder FOLDER] [--shards-only]

Throughput: the step ``screen.images`` on two cores beside a loop on one core that decodes
file after file with imagecodecs or tifffile and writes each site into a plain zarr array (one
chunk a site, zstd level 1, no shards), in turn, each in a process of its own; ratios of wall
clock, medians of pairs; TIFF beside either library. On a busy machine two threads do not get
two cores: processor seconds tell what is left then. MB are those of decoded pixels. Bound: 1.7
for each kind of file.

RxRx3-core: 12 shards of made-up wells with row groups of 100 rows, and the same with one row
group a shard and larger shards, converted and read in place: wells a second, peak memory of
the process. Bound: 2 GB, and no more than 100 MB between small and large shards.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import polars as pl
import tifffile
import zarr

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.screen.public import write_shards

ROOT = Path(__file__).parents[1]
PEERS = ("imagecodecs", "tifffile")
BOUND, PEAK_MB, GROWTH_MB = 1.7, 2000.0, 100.0
STAINS = ["DNA", "ER", "AGP", "RNA", "Mito", "Golgi"]
# Lossy, at about the ratio of the public set: 18 GB for 350 GB of pixels.
LEVEL = 24
DISTINCT = 24


def cells(rng, side, dtype):
    """A channel like cells: blurred spots on a dark, noisy background."""
    spots = np.zeros((side, side))
    at = rng.integers(0, side, (2, side * side // 400))
    spots[at[0], at[1]] = rng.uniform(0.3, 1.0, at.shape[1])
    kernel = np.exp(-(np.fft.fftfreq(side) ** 2) * 2 * (np.pi * 5) ** 2)
    light = np.fft.ifft2(np.fft.fft2(spots) * np.outer(kernel, kernel)).real
    photons = rng.poisson(12 + 4000 * light.clip(0))
    return (photons * (np.iinfo(dtype).max / 60)).clip(0, np.iinfo(dtype).max).astype(dtype)


def wells_table(folder, name, wells):
    """The public table of wells of one experiment."""
    rows = [("gene-001", 1, well, "G", f"G_guide_{at}") for at, well in enumerate(wells)]
    rows[0] = ("gene-001", 1, wells[0], "EMPTY_control", "EMPTY_control")
    columns = ["experiment_name", "plate", "address", "gene", "treatment"]
    table = pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        **dict.fromkeys(("SMILES", "concentration"), pl.lit(None, dtype=pl.String)),
        perturbation_type=pl.lit("CRISPR"),
        cell_type=pl.lit("HUVEC"),
    )
    table.write_csv(folder / name)


def addresses(n):
    """Addresses of a plate of 1,536 wells, row by row."""
    letters = [chr(65 + row) if row < 26 else "A" + chr(39 + row) for row in range(32)]
    return [f"{letters[at // 48]}{at % 48 + 1:02d}" for at in range(n)]


def make_core(folder, n_wells, shards, group, keep=1):
    """Shards of JPEG 2000; ``keep`` repeats each image's bytes to make shards larger."""
    rng = np.random.default_rng(0)
    images = [
        imagecodecs.jpeg2k_encode(cells(rng, 512, np.uint8), level=LEVEL, reversible=False)
        for _ in range(DISTINCT)
    ]
    # What follows the end of a codestream is not looked at: zeros make rows larger.
    images = [data + bytes((keep - 1) * len(data)) for data in images]
    wells = addresses(n_wells)
    keys = [f"gene-001/Plate1/{well}_s1_{c}" for well in wells for c in range(1, 7)]
    folder.mkdir(parents=True)
    encoded = [images[at % DISTINCT] for at in range(len(keys))]
    # Equal images must not become one.
    kind = {"use_dictionary": False, "compression": "none"}
    write_shards(folder, keys, encoded, shards, group, **kind)
    wells_table(folder, "metadata_rxrx3_core.csv", wells)


def make_png(folder, n_wells):
    """RxRx3: 16-bit PNG of 2048 x 2048 pixels."""
    rng = np.random.default_rng(0)
    images = [imagecodecs.png_encode(cells(rng, 2048, np.uint16)) for _ in range(6)]
    home = folder / "images/gene-001/Plate1"
    home.mkdir(parents=True)
    for well in addresses(n_wells):
        for channel, data in enumerate(images, start=1):
            (home / f"{well}_s1_w{channel}.png").write_bytes(data)
    wells_table(folder, "metadata_rxrx3.csv", addresses(n_wells))


def make_tiff(folder, n_wells, **kind):
    """A table of 16-bit TIFFs of 1080 x 1080 pixels in five channels, as microscopes write."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for channel in STAINS[:5]:
        tifffile.imwrite(folder / f"{channel}.tif", cells(rng, 1080, np.uint16), **kind)
    rows = []
    for well in addresses(n_wells):
        for channel in STAINS[:5]:
            # The same bytes under names of their own.
            os.link(folder / f"{channel}.tif", folder / f"{well}_{channel}.tif")
        rows.append({"well": well} | {c: f"{well}_{c}.tif" for c in STAINS[:5]})
    pl.DataFrame(rows).write_csv(folder / "wells.csv")


def knobs_of(kind):
    """Settings of the step for one of the folders, and its tables."""
    if kind == "core":
        return {"source": "rxrx3_core"}, "metadata_rxrx3_core.csv"
    if kind == "png":
        return {"source": "rxrx3"}, "metadata_rxrx3.csv"
    columns = {"plate": {"constant": 1}, "well": "well", "cell_type": {"constant": "U2OS"}}
    settings = {"columns": {**columns, "role": {"constant": "perturbation"}}, "roles": {}}
    return {
        **settings,
        "channels": STAINS[:5],
        "files": {c: c for c in STAINS[:5]},
    }, "wells.csv"


def convert_ours(kind, folder, out, decode="once"):
    """Run the step; for reading in place also read every site once, in order."""
    from phenopipe.formats.images import open_pixels
    from phenopipe.screen import images
    from phenopipe.screen.config import ImagesKnobs

    settings, table = knobs_of(kind)
    knobs = ImagesKnobs.model_validate({**settings, "root": str(folder), "decode": decode})
    argv = ["--table", str(folder / table), "--screen=s", "--experiment=gene-001"]
    argv += [f"--wells={out}/wells.parquet", f"--images={out}/images.parquet"]
    start = np.array([time.perf_counter(), time.process_time()])
    images.main([*argv, f"--pixels={out}/images.zarr", *knobs.as_flags()])
    pixels = open_pixels(out / "images.zarr")
    if decode == "in_place":
        for first in range(0, pixels.shape[0], 16):
            pixels[first : first + 16]
    return start, pixels


def convert_plain(how, kind, folder, out):
    """Decode file after file by a library and write each site into a plain zarr array."""
    import pyarrow.parquet as pq

    start = np.array([time.perf_counter(), time.process_time()])
    if kind == "core":
        sites = _core_sites(folder, pq)
    elif kind == "png":
        names = sorted({p.name.rsplit("_w", 1)[0] for p in folder.rglob("*.png")})
        home = folder / "images/gene-001/Plate1"
        sites = (
            [imagecodecs.png_decode((home / f"{n}_w{c}.png").read_bytes()) for c in range(1, 7)]
            for n in names
        )
    else:
        rows = pl.read_csv(folder / "wells.csv")
        read = (
            tifffile.imread if how == "tifffile" else partial(imagecodecs.imread, codec="tiff")
        )
        sites = (
            [read(folder / row[c]) for c in STAINS[:5]] for row in rows.iter_rows(named=True)
        )
    n = pl.read_csv(folder / knobs_of(kind)[1]).height
    store = None
    for at, site in enumerate(sites):
        stacked = np.stack(site)
        if store is None:
            shape = (n, *stacked.shape)
            store = zarr.create_array(
                str(out / "plain.zarr"),
                shape=shape,
                chunks=(1, *stacked.shape),
                dtype=stacked.dtype,
                compressors=zarr.codecs.ZstdCodec(level=1),
            )
        store[at] = stacked
    return start, store


def _core_sites(folder, pq):
    held = []
    for path in sorted((folder / "data").glob("*.parquet")):
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            for one in file.read_row_group(group, columns=["jp2"]).column("jp2").to_pylist():
                held.append(imagecodecs.jpeg2k_decode(one["bytes"]))
                if len(held) == 6:
                    yield held
                    held = []


def worker(how, kind, folder):
    """One conversion in this process: seconds, processor seconds, megabytes, peak memory."""
    import contextlib

    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        out = Path(name)
        os.chdir(out)
        with contextlib.redirect_stdout(sys.stderr):
            if how in PEERS:
                start, store = convert_plain(how, kind, folder, out)
            else:
                start, store = convert_ours(kind, folder, out, how)
        spent = np.array([time.perf_counter(), time.process_time()]) - start
        status = Path("/proc/self/status").read_text()
        peak = float(status.split("VmHWM:")[1].split()[0]) / 1e3
        size = np.prod(store.shape) * store.dtype.itemsize / 1e6
        told = {"wall": spent[0], "cpu": spent[1], "mb": size, "sites": store.shape[0]}
        print(json.dumps({**told, "peak": peak}))


def run(how, kind, folder, cores):
    """Run one conversion in a process of its own on so many cores."""
    command = [sys.executable, __file__, "--worker", how, kind, str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": str(cores), "PYTHONPATH": str(ROOT)}
    chosen = sorted(os.sched_getaffinity(0))[:cores]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=env,
        preexec_fn=lambda: os.sched_setaffinity(0, chosen),
    )
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def throughput(name, kind, folder, pairs, peer="imagecodecs"):
    """Print megabytes a second of the step and its ratio to the plain loop; return that."""
    run("once", kind, folder, 2)  # files into the page cache
    ours, plain = [], []
    for _ in range(pairs):
        plain.append(run(peer, kind, folder, 1))
        ours.append(run("once", kind, folder, 2))
    ratios = [a["wall"] / b["wall"] for a, b in zip(plain, ours, strict=True)]
    ratio, mb = float(np.median(ratios)), ours[0]["mb"]
    wall, other = (float(np.median([one["wall"] for one in each])) for each in (ours, plain))
    cpu, cpu_plain = (float(np.median([one["cpu"] for one in each])) for each in (ours, plain))
    both = 2 * cpu_plain / cpu
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(
        f"{name}: {mb / wall:.0f} MB/s on two cores, loop of {peer} on one {mb / other:.0f}"
        f" MB/s; ratio {ratio:.2f} ({spread}; bound at least {BOUND});"
        f" processor seconds {cpu:.1f}, plain {cpu_plain:.1f}, so at most {both:.2f} where both"
        f" cores are idle; peak {ours[0]['peak']:.0f} MB",
        flush=True,
    )
    return ratio


def shards(folder, wells):
    """Print wells a second and peak memory of 12 shards, converted and in place."""
    kept = True
    peaks = {}
    for name, group, keep in (
        ("row groups of 100", 100, 1),
        ("one row group a shard", 10**6, 1),
        ("one row group a shard, 20 times as large", 10**6, 20),
    ):
        place = folder / f"core-{group}-{keep}"
        make_core(place, wells, 12, group, keep)
        size = sum(p.stat().st_size for p in place.rglob("*.parquet")) / 1e6
        for how in ("once", "in_place"):
            done = run(how, "core", place, 2)
            peaks[name, how] = done["peak"]
            print(
                f"RxRx3-core, 12 shards ({size:.0f} MB, {name}), "
                f"{'converted' if how == 'once' else 'read in place'}: "
                f"{done['sites'] / done['wall']:.1f} wells/s, {done['cpu']:.1f} processor "
                f"seconds, peak {done['peak']:.0f} MB (bound {PEAK_MB:.0f})",
                flush=True,
            )
            kept &= done["peak"] <= PEAK_MB and done["sites"] == wells
    for how in ("once", "in_place"):
        own = [peak for (_, one), peak in peaks.items() if one == how]
        kept &= max(own) - min(own) <= GROWTH_MB
    told = "yes" if kept else "no"
    print(f"memory stays when shards grow: {told} (bound {GROWTH_MB:.0f} MB)")
    return kept


def main() -> int:
    """Print the figures; 1 if a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--wells", type=int, default=300, help="of RxRx3-core")
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--shards-only", action="store_true")
    parser.add_argument("--worker", nargs=3)
    given = parser.parse_args()
    if given.worker:
        worker(given.worker[0], given.worker[1], Path(given.worker[2]))
        return 0
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        kept = shards(folder, given.wells)
        if given.shards_only:
            return 0 if kept else 1
        make_png(folder / "png", 40)
        make_tiff(folder / "tiff", 160)
        make_tiff(folder / "lzw", 80, compression="lzw")
        ratios = [
            throughput("JPEG 2000 in shards", "core", folder / "core-100-1", given.pairs),
            throughput("PNG, 16 bit", "png", folder / "png", given.pairs),
        ]
        for peer in PEERS:
            for name, place in (("LZW", "lzw"), ("not compressed", "tiff")):
                told = f"TIFF, 16 bit, {name}"
                ratios.append(throughput(told, "tiff", folder / place, given.pairs, peer))
    return 0 if kept and min(ratios) >= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
