"""Small trees in exactly the layouts of public screens, and one run of the screen stage."""

from itertools import product
from pathlib import Path
from zlib import crc32

import imagecodecs
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from phenopipe.formats.images import open_pixels, read_images
from phenopipe.formats.wells import read_wells
from phenopipe.screen import images
from phenopipe.screen.adapters import ADAPTERS
from phenopipe.screen.config import ImagesKnobs


def plane(name, size, dtype=np.uint8):
    """Pixels that differ from plane to plane, and that anyone can make again from its name."""
    return np.random.default_rng(crc32(name.encode())).integers(
        1, np.iinfo(dtype).max, size, dtype=dtype
    )


def write_png(path, name, size, dtype):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(plane(name, size, dtype)))


def screen_experiment(folder, source, experiment, *, tables=None, **changes):
    """Run the step on one experiment: its wells, images and pixels."""
    settings = {"source": source, "root": str(folder), **changes}
    knobs = ImagesKnobs.model_validate(settings)
    out = folder / "out" / experiment
    tables = tables or ADAPTERS[source].tables(folder)
    argv = ["--table", *map(str, tables), "--screen", "s", "--experiment", experiment]
    argv += [f"--wells={out}/wells.parquet", f"--images={out}/images.parquet"]
    images.main([*argv, f"--pixels={out}/images.zarr", *knobs.as_flags()])
    return (
        read_wells(out / "wells.parquet"),
        read_images(out / "images.parquet"),
        open_pixels(out / "images.zarr"),
    )


def rxrx1(folder: Path, experiments=("HUVEC-01", "RPE-02"), wells=("B02", "B03", "C04")):
    """Two experiments of two plates, two sites a well: a control, an siRNA, a strong one."""
    types = ["negative_control", "treatment", "positive_control"]
    rows = []
    for (name, plate), (at, well), site in product(
        product(experiments, (1, 2)), enumerate(wells), (1, 2)
    ):
        well_id = f"{name}_{plate}_{well}"
        sirna = ["EMPTY", f"s{20000 + plate}", "s15652"][at]
        words = (f"{well_id}_{site}", well_id, name.split("-")[0], "train", name, plate, well)
        rows.append((*words, site, types[at], sirna, [1138, plate, 1108][at]))
        for channel in range(1, 7):
            file = f"{name}/Plate{plate}/{well}_s{site}_w{channel}.png"
            write_png(folder / "images" / file, file, (16, 16), np.uint8)
    columns = "site_id well_id cell_type dataset experiment plate well site well_type sirna"
    table = pl.DataFrame(rows, schema=[*columns.split(), "sirna_id"], orient="row")
    table.write_csv(folder / "metadata.csv")
    return table


CORE = {
    "gene-001": [
        ("A01", "EMPTY_control", "EMPTY_control", "", None, "CRISPR"),
        ("A02", "CLDN4", "CLDN4_guide_1", "", None, "CRISPR"),
        ("AF48", "CLDN4", "CLDN4_guide_2", "", None, "CRISPR"),
        ("B03", "RXRX3-12345", "RXRX3-12345_guide_6", "", None, "CRISPR"),
    ],
    "compound-001": [
        ("A01", None, "EMPTY_control", "", None, "COMPOUND"),
        ("A02", None, "CRISPR_control", "", None, "COMPOUND"),
        ("A03", None, "drug_with_bar", "CC(C)C |c:1,4|", 0.25, "COMPOUND"),
        ("B03", None, "drug_with_bar", "CC(C)C |c:1,4|", 0.026, "COMPOUND"),
    ],
}


def rxrx3_table(folder: Path, name: str, plates=(1, 2), core=False):
    """The table of wells of two experiments; blanks where the public one has them."""
    rows = [
        (f"{experiment}_{plate}_{well}", experiment, plate, well, *told, "HUVEC")
        for experiment, plate in product(CORE, plates)
        for well, *told in CORE[experiment]
    ]
    columns = "well_id experiment_name plate address gene treatment SMILES concentration"
    table = pl.DataFrame(
        rows, schema=[*columns.split(), "perturbation_type", "cell_type"], orient="row"
    )
    if core:
        table = table.with_columns(well_type_label=pl.lit("Query guides"))
    folder.mkdir(parents=True, exist_ok=True)
    table.write_csv(folder / name)
    return table


def rxrx3(folder: Path):
    """16-bit PNGs of all wells but those of a plate that was not brought."""
    table = rxrx3_table(folder, "metadata_rxrx3.csv")
    for row in table.iter_rows(named=True):
        place = f"{row['experiment_name']}/Plate{row['plate']}"
        if place == "compound-001/Plate2":
            continue
        for channel in range(1, 7):
            file = f"{place}/{row['address']}_s1_w{channel}.png"
            write_png(folder / "images" / file, file, (32, 32), np.uint16)
    return table


def rxrx3_core(folder: Path, shards=3, group=7):
    """Shards whose row groups and ends cut wells in two."""
    table = rxrx3_table(folder, "metadata_rxrx3_core.csv", core=True)
    keys = [
        f"{row['experiment_name']}/Plate{row['plate']}/{row['address']}_s1_{channel}"
        for row in table.iter_rows(named=True)
        for channel in range(1, 7)
    ]
    write_shards(folder, keys, [jp2(key) for key in keys], shards, group)
    return table


def jp2(key, size=(32, 32)):
    return imagecodecs.jpeg2k_encode(plane(key, size), reversible=True)


def write_shards(folder, keys, encoded, shards, group):
    """Write keys and images as the public set does: a struct of bytes and a path."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    step = -(-len(keys) // shards)
    for number in range(shards):
        own = slice(number * step, (number + 1) * step)
        rows = [
            {"bytes": data, "path": f"{key}.jp2"}
            for key, data in zip(keys[own], encoded[own], strict=True)
        ]
        table = pa.table({"__key__": keys[own], "jp2": pa.array(rows, type=image)})
        path = folder / f"data/train-{number:05d}-of-{shards:05d}.parquet"
        pq.write_table(table, path, row_group_size=group)
