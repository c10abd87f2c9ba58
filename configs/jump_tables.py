"""Tables of the gene knockouts of JUMP-CP, one a batch, for configs/jump.yaml.

    python configs/jump_tables.py FOLDER

FOLDER is laid out as the public bucket and its table of metadata are:

    metadata/plate.csv.gz, well.csv.gz, crispr.csv.gz
    source_13/workspace/profiles/BATCH/PLATE/PLATE.parquet

Writes ``jump_BATCH.parquet`` beside them: wells of all plates of knockouts that are there, and
CellProfiler features of their cells, cytoplasm and nuclei.
Features have unlike scales, so each is centred and divided by its standard deviation over the
wells of its plate; those that are missing or constant on any plate are left out of all. A well
that lacks more than a tenth of all features has lost its cells: it stays, and qc flags it.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

COMPARTMENTS = ("Cells_", "Cytoplasm_", "Nuclei_")
NON_TARGETING, NO_GUIDE, PLK1 = "JCP2022_800002", "JCP2022_800001", "JCP2022_805264"
CONTROLS = {NON_TARGETING: "non-targeting", NO_GUIDE: "no-guide", PLK1: "poscon"}
PLATE = ("Metadata_Source", "Metadata_Batch", "Metadata_Plate")
WELL = ("Metadata_Source", "Metadata_Plate", "Metadata_Well")


def metadata(folder: Path, name: str) -> pl.DataFrame:
    """One of the tables of metadata, all columns as text."""
    return pl.read_csv(folder / "metadata" / f"{name}.csv.gz", infer_schema=False)


def profiles_of(folder: Path, plate: dict[str, str]) -> Path:
    """Where the features of a plate's wells lie."""
    source, batch, name = (plate[column] for column in PLATE)
    return folder / source / "workspace" / "profiles" / batch / name / f"{name}.parquet"


def features_of(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.bool_]]:
    """Names of the features of one plate, their values, and which wells have cells."""
    names = [n for n in pl.read_parquet_schema(path) if n.startswith(COMPARTMENTS)]
    x_WD = pl.read_parquet(path, columns=names).cast(pl.Float64).to_numpy()
    return names, x_WD, np.isfinite(x_WD).mean(axis=1) >= 0.9


def usable(paths: list[Path]) -> list[str]:
    """Features that vary, and that no well with cells lacks, on every plate."""
    kept: dict[str, None] | None = None
    for path in paths:
        names, x_WD, has_cells_W = features_of(path)
        x_WD = x_WD[has_cells_W]
        good_D = np.isfinite(x_WD).all(axis=0)
        good_D[good_D] = x_WD[:, good_D].std(axis=0) > 1e-9
        here = {name for name, good in zip(names, good_D, strict=True) if good}
        kept = dict.fromkeys(name for name in (kept or names) if name in here)
    return list(kept or {})


def scaled(path: Path, chosen: list[str]) -> pl.DataFrame:
    """Wells of one plate, with their chosen features centred and scaled."""
    names, x_WD, has_cells_W = features_of(path)
    x_WD = x_WD[:, [names.index(name) for name in chosen]]
    known_WD = x_WD[has_cells_W]
    x_WD = (x_WD - known_WD.mean(axis=0)) / known_WD.std(axis=0)
    wells = pl.read_parquet(path, columns=list(WELL)).cast(pl.String)
    return wells.hstack(pl.DataFrame(x_WD.astype(np.float32), schema=chosen))


def batches(plates: pl.DataFrame) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Name and plates of each batch."""
    for (name,), part in plates.sort(PLATE).group_by("Metadata_Batch", maintain_order=True):
        yield str(name), part.to_dicts()


def main(folder: Path) -> None:
    """Join the tables of a folder, and write the results beside them."""
    plates = metadata(folder, "plate").filter(pl.col("Metadata_PlateType") == "CRISPR")
    there = [profiles_of(folder, plate).exists() for plate in plates.to_dicts()]
    print(f"{folder}: {sum(there)} of {plates.height} plates of knockouts have profiles")
    plates = plates.filter(pl.Series(there, dtype=pl.Boolean))
    if not plates.height:
        wanted = profiles_of(Path(), dict.fromkeys(PLATE, "..."))
        sys.exit(f"{folder}: no profiles, wanted {wanted}")
    chosen = usable([profiles_of(folder, plate) for plate in plates.to_dicts()])
    if not chosen:
        sys.exit(f"{folder}: no feature varies on every plate without gaps")
    knockouts = metadata(folder, "crispr").select("Metadata_JCP2022", "Metadata_Symbol")
    treated = metadata(folder, "well").join(knockouts, on="Metadata_JCP2022")
    for batch, own in batches(plates):
        features = pl.concat([scaled(profiles_of(folder, plate), chosen) for plate in own])
        code = pl.col("Metadata_JCP2022")
        control = code.replace_strict(CONTROLS, default="", return_dtype=pl.String)
        table = features.join(treated, on=WELL, maintain_order="left").select(
            pl.lit(batch).alias("Metadata_Batch"),
            *WELL,
            code,
            "Metadata_Symbol",
            control.alias("Metadata_control_type"),
            *chosen,
        )
        out = folder / f"jump_{batch}.parquet"
        table.write_parquet(out)
        print(f"{out}: {table.height} wells of {len(own)} plates, {len(chosen)} features")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
