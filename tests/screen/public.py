"""Small trees in exactly the layouts of public screens, and one run of the screen stage."""

import json
from itertools import product
from pathlib import Path
from zlib import crc32

import imagecodecs
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import tifffile
import zarr

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


def write_shards(folder, keys, encoded, shards, group, **kind):
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
        pq.write_table(table, path, row_group_size=group, **kind)


JUMP_GENES = {"JCP2022_801000": "AAK1", "JCP2022_801001": "ABL1"}
JUMP_CODES = ["JCP2022_800002", "JCP2022_800001", "JCP2022_805264", *JUMP_GENES]


def jump(folder: Path):
    """Two batches of two plates, of three microscopes; a plate of each batch is absent."""
    batches = {"Run1": ["CP-1", "CP-2"], "Run2": ["3", "4"]}
    plates = [("source_13", batch, name) for batch in batches for name in batches[batch]]
    listed = pl.DataFrame(plates, schema=["Source", "Batch", "Plate"], orient="row")
    listed = listed.rename(lambda name: f"Metadata_{name}")
    wells = [("source_13", plate, f"A{at:02d}") for _, _, plate in plates for at in range(1, 6)]
    metadata = folder / "metadata"
    metadata.mkdir(parents=True)
    listed = listed.with_columns(Metadata_PlateType=pl.lit("CRISPR"))
    write_gzip(metadata / "plate.csv.gz", listed)
    of_wells = pl.DataFrame(wells, schema=["Source", "Plate", "Well"], orient="row")
    of_wells = of_wells.rename(lambda name: f"Metadata_{name}")
    of_wells = of_wells.with_columns(Metadata_JCP2022=pl.Series(JUMP_CODES * len(plates)))
    write_gzip(metadata / "well.csv.gz", of_wells)
    known = {"JCP2022_805264": "PLK1", "JCP2022_800002": "non-targeting", **JUMP_GENES}
    symbols = {"Metadata_JCP2022": [*known], "Metadata_Symbol": [*known.values()]}
    write_gzip(metadata / "crispr.csv.gz", pl.DataFrame(symbols))
    control = "JCP2022_800001,negcon,no-guide,crispr\n"
    control += "JCP2022_800002,negcon,non-targeting,crispr\n"
    control += "JCP2022_805264,poscon,PLK1,crispr\n"
    header = "Metadata_JCP2022,Metadata_pert_type,Metadata_Name,Metadata_modality\n"
    (metadata / "perturbation_control.csv").write_text(header + control)
    microscopes = "Metadata_Source,Metadata_Pixel_Size_Microns\n1,0.597976\n13,0.65\n"
    (metadata / "microscope_config.csv").write_text(microscopes)
    for (_, batch, plate), names in zip(plates, (cv7000, phenix, imagexpress), strict=False):
        jump_plate(folder, batch, plate, names)


def write_gzip(path, table):
    table.write_csv(path, compression="gzip")


def cv7000(plate, well, site, channel):
    return f"{plate}/{plate}_{well}_T0001F{site:03d}L01A{channel:02d}Z01C{channel:02d}.tif"


def phenix(plate, well, site, channel):
    row, column = ord(well[0]) - 64, int(well[1:])
    name = f"r{row:02d}c{column:02d}f{site:02d}p01-ch{channel}sk1fk1fl1.tiff"
    return f"{plate}__2020-11-11T18_13_00-Measurement1/Images/{name}"


def imagexpress(plate, well, site, channel):
    return f"{plate}/TimePoint_1/HTS_{well}_s{site}_w{channel}{crc32(plate.encode()):08X}.tif"


def jump_plate(folder, batch, plate, names):
    """Images of one plate, and the table that alone says which is which; sites from 0."""
    stains = {"DNA": 3, "ER": 2, "AGP": 4, "RNA": 5, "Mito": 1, "Brightfield": 6}
    rows = []
    for at, site in product(range(1, 6), (0, 1)):
        well = f"A{at:02d}"
        row = {"Metadata_Source": "source_13", "Metadata_Batch": batch}
        row |= {"Metadata_Plate": plate, "Metadata_Well": well, "Metadata_Site": site}
        for stain, number in stains.items():
            file = f"{batch}/images/{names(plate, well, site + 1, number)}"
            path = folder / "source_13/images" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(path, plane(f"{plate}{well}{site}{stain}", (16, 16), np.uint16))
            home = "s3://cellpainting-gallery/cpg0016-jump/source_13/images"
            if names is phenix:  # an older table: folders of another machine, and names
                row[f"PathName_Orig{stain}"] = f"/home/u/images/{Path(file).parent}/"
                row[f"FileName_Orig{stain}"] = Path(file).name
            else:
                row[f"URL_Orig{stain}"] = f"{home}/{file}"
            row[f"FileName_Illum{stain}"] = f"{plate}_Illum{stain}.npy"
        rows.append(row)
    home = folder / "source_13/workspace/load_data_csv"
    path = home / batch / plate / "load_data_with_illum.csv"
    path.parent.mkdir(parents=True)
    pl.DataFrame(rows).write_csv(path)


OME_STAINS = ["Mito", "DNA"]


def ome_zarr(folder: Path, version: str, size=(20, 24)):
    """Two plates, 2 x 2 wells less one that is absent, two fields, big-endian pixels in 0.4."""
    rows = []
    for number in (1, 2):
        plate = folder / f"plate-{number}.ome.zarr"
        paths = [f"{row}/{column}" for row, column in product("AB", "12")][: 5 - number]
        wells = [
            {"path": path, "rowIndex": "AB".index(path[0]), "columnIndex": int(path[2]) - 1}
            for path in paths
        ]
        layout = {"rows": [{"name": n} for n in "AB"], "columns": [{"name": n} for n in "12"]}
        told = {"name": f"P{number}", "field_count": 2, "wells": wells, **layout}
        told |= {"version": version} if version == "0.4" else {}
        told["acquisitions"] = [{"id": 0}, {"id": 1}]
        write_attributes(plate, version, {"plate": told})
        for path in paths:
            fields = [{"path": str(field), "acquisition": 0} for field in (0, 1)]
            again = [{"path": "9", "acquisition": 1}]
            write_attributes(plate / path, version, {"well": {"images": fields + again}})
            for field in (0, 1):
                names = [f"P{number}/{path}/{field}/{stain}" for stain in OME_STAINS]
                pixels = np.stack([plane(name, size, np.uint16) for name in names])
                ome_image(plate / path / str(field), version, pixels)
        for at, well in enumerate(("A01", "A02", "B01", "B02")):
            drug = ["DMSO", "taxol"][at % 2]
            rows.append((f"week-{number}", f"P{number}", well, ["ctrl", "trt"][at % 2], drug))
    columns = ["experiment", "plate", "well", "role", "compound"]
    table = pl.DataFrame(rows, schema=columns, orient="row")
    table.write_csv(folder / "wells.csv")
    return table


def write_attributes(node, version, attributes):
    node.mkdir(parents=True, exist_ok=True)
    if version == "0.4":
        (node / ".zgroup").write_text('{"zarr_format": 2}')
        (node / ".zattrs").write_text(json.dumps(attributes))
    else:
        ome = {"version": version, **attributes}
        told = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}}
        (node / "zarr.json").write_text(json.dumps(told))


def ome_image(node, version, pixels_CHW, stains=OME_STAINS, pixel_um=0.5):
    """One field, (t, c, z, y, x) with two resolutions; a factor for the whole pyramid."""
    axes = [
        {"name": "t", "type": "time"},
        {"name": "c", "type": "channel"},
        *({"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"),
    ]
    datasets = [
        {"path": str(at), "coordinateTransformations": [scaling(pixel_um / 2 * 2**at)]}
        for at in (0, 1)
    ]
    scales = {"axes": axes, "datasets": datasets, "coordinateTransformations": [scaling(2.0)]}
    window = {"min": 0, "max": 65535, "start": 0, "end": 65535}
    shown = {"active": True, "color": "FFFFFF", "window": window}
    labels = [{"label": stain, **shown} for stain in stains]
    told = {"multiscales": [{**scales, "version": version}], "omero": {"channels": labels}}
    write_attributes(node, version, told)
    old = version == "0.4"
    of_both = {"name": "v2", "separator": "/"}
    keys = {"chunk_key_encoding": of_both} if old else {"dimension_names": [*"tczyx"]}
    for at in (0, 1):
        level = pixels_CHW[None, :, None, :: 2**at, :: 2**at]
        array = zarr.create_array(
            str(node / str(at)),
            shape=level.shape,
            chunks=(1, 1, 1, *level.shape[3:]),
            dtype=">u2" if old else "uint16",
            zarr_format=2 if old else 3,
            fill_value=0,
            **keys,
        )
        array[:] = level


def scaling(factor):
    return {"type": "scale", "scale": [1.0, 1.0, 1.0, factor, factor]}
