"""A tiny plate of real image files and its table, as a user would bring them."""

from pathlib import Path

import imagecodecs
import numpy as np
import polars as pl

from phenopipe.knobs import run_step
from phenopipe.screen.config import ImagesKnobs, ProfilesKnobs

COLUMNS = {
    "plate": "plate",
    "well": "well",
    "role": "role",
    "cell_type": {"constant": "U2OS"},
    "treatments": [
        {
            "perturbation": "compound",
            "kind": {"constant": "compound"},
            "concentration": "dose",
            "concentration_unit": {"constant": "nM"},
        }
    ],
    "labels": {"dose": "dose"},
}
ROLES = {"negative_control": ["dmso"], "perturbation": ["treated"]}


def table(wells=("A01", "A2", "b1"), plate="p1"):
    """Rows of a plate: its first well is a control, the others get one compound."""
    n = len(wells)
    return pl.DataFrame(
        {
            "plate": [plate] * n,
            "well": list(wells),
            "role": ["dmso"] + ["treated"] * (n - 1),
            "compound": ["DMSO"] + ["taxol"] * (n - 1),
            "dose": [None] + [float(10**at) for at in range(1, n)],
            "dna": [f"{well}_dna.png" for well in wells],
            "actin": [f"{well}_actin.png" for well in wells],
        }
    )


def pixels(rows, root: Path, size=(8, 10), dtype=np.uint8):
    """Write a PNG for every file that the table names; its grey value tells which."""
    for at, row in enumerate(rows.iter_rows(named=True)):
        for channel, name in enumerate((row["dna"], row["actin"])):
            image = np.full(size, 10 * at + channel, dtype=dtype)
            (root / name).write_bytes(imagecodecs.png_encode(image))


def image_knobs(**changes):
    return ImagesKnobs.model_validate(
        {
            "columns": COLUMNS,
            "roles": ROLES,
            "untreated": ["DMSO"],
            "channels": ["dna", "actin"],
            "files": {"dna": "dna", "actin": "actin"},
            **changes,
        }
    )


def profile_knobs(**changes):
    return ProfilesKnobs.model_validate(
        {
            "columns": COLUMNS,
            "roles": ROLES,
            "untreated": ["DMSO"],
            "feature_prefixes": ["f"],
            **changes,
        }
    )


def by_row(rows):
    """The same plate with one row a site and channel."""
    return rows.unpivot(
        on=["dna", "actin"],
        index=["plate", "well", "role", "compound", "dose"],
        variable_name="stain",
        value_name="path",
    )


def arguments(folder: Path, tables, knobs, *, last="pixels", out=None):
    """Command line of screen.images (last: pixels) or screen.profiles (last: profiles)."""
    out = out or folder / "out"
    end = "images.zarr" if last == "pixels" else "profiles.parquet"
    return [
        "--table",
        *map(str, tables),
        *("--wells", str(out / "wells.parquet"), "--images", str(out / "images.parquet")),
        *(f"--{last}", str(out / end), "--screen", "own", "--experiment", "e1"),
        *knobs.as_flags(),
    ]


def complaint(main, argv):
    """What a command says when it refuses: the text of its exit, as run_step leaves it."""
    try:
        run_step(lambda: main(argv))
    except SystemExit as stop:
        return str(stop.code)
    return ""
