"""One table of BBBC021's well profiles with their treatments, for configs/bbbc021.yaml.

    python configs/bbbc021_table.py FOLDER

FOLDER holds the three files of the public profiles (Ljosa et al. 2013): features of wells, the
table of images with plates, wells, compounds and doses, and the mechanisms of action. Writes
``bbbc021_wells.csv.gz`` beside them: features of unlike scales are centred on all DMSO wells
and divided by their standard deviation there, all plates together; constant ones are left out.
"""

import sys
from pathlib import Path

import polars as pl

PROFILES = "ljosa_jbiomolscreen_2013_per_well_mean.csv.gz"
IMAGES = "BBBC021_v1_image.csv.gz"
PLATE, WELL = "Image_Metadata_Plate", "Image_Metadata_Well"


def main(folder: Path) -> None:
    """Join the tables of a folder, and write the result beside them."""
    profiles = pl.read_csv(folder / PROFILES, infer_schema_length=None)
    images = pl.read_csv(folder / IMAGES, infer_schema_length=None)
    wells = images.select(
        pl.col(f"{PLATE}_DAPI").alias(PLATE),
        pl.col(f"{WELL}_DAPI").alias(WELL),
        Metadata_Compound="Image_Metadata_Compound",
        Metadata_Concentration="Image_Metadata_Concentration",
    ).unique()
    joined = profiles.join(wells, on=[PLATE, WELL], how="left", maintain_order="left")
    if joined.height != profiles.height or joined["Metadata_Compound"].null_count():
        sys.exit(f"{folder}: wells without a treatment, or with several")
    features = [name for name in profiles.columns if name not in (PLATE, WELL)]
    dmso = joined.filter(pl.col("Metadata_Compound") == "DMSO").select(features)
    varying = [name for name in features if (dmso[name].std() or 0) > 1e-9]
    scaled = [
        ((pl.col(name) - dmso[name].mean()) / dmso[name].std()).cast(pl.Float32)
        for name in varying
    ]
    table = joined.select(
        pl.col(PLATE).alias("Metadata_Plate"),
        pl.col(WELL).alias("Metadata_Well"),
        pl.col(PLATE).str.extract(r"^(Week\d+)_").alias("Metadata_Week"),
        "Metadata_Compound",
        "Metadata_Concentration",
        *scaled,
    )
    out = folder / "bbbc021_wells.csv.gz"
    table.write_csv(out, compression="gzip")
    print(f"{out}: {table.height} wells, {len(varying)} of {len(features)} features")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
