"""Step ``check``: what is wrong with a whole screen, before any expensive work.

Reads the tables of all experiments twice, one experiment at a time, and no pixels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic
from phenopipe.formats.images import read_images
from phenopipe.formats.qc import DEFECTS, LEVELS, write_defects
from phenopipe.formats.wells import read_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.qc.checks import unlabelled
from phenopipe.qc.config import CheckKnobs
from phenopipe.qc.survey import Survey, Tables, digests, survey, without_pair

EXAMPLES = 3
# Every defect: what is counted, and how to mend it.
MEND = {
    "unreadable_image": (
        "image",
        "set aside at import as absent or damaged: the log of the screen stage names each "
        "file; bring the file, or take its row out of the table",
    ),
    "unusual_size": ("image", "set aside, or unlike other experiments: crop it, or leave it"),
    "unusual_channels": ("image", "unlike most of the screen: bring the missing channels"),
    "repeated_image": ("image", "a file that serves two images: correct the table"),
    "image_without_well": ("image", "name its well in the table, or leave the image out"),
    "well_without_image": ("well", "bring its images, or take the well out of the table"),
    "well_without_label": ("well", "name its perturbation, or make its role empty"),
    "repeated_well": ("well", "give each well a plate and address of its own"),
    "plate_without_controls": ("plate", "name its negative controls (roles, untreated)"),
    "experiment_without_pair": (
        "experiment",
        "no other experiment has its layout in its cell type: benchmark.replicates has no "
        "pair for it; correct the layouts, or leave it",
    ),
}
_ITEMS = {"plate": pl.String, "item": pl.String, "defect": pl.String}


def check_screen(
    experiments: Callable[[], Iterable[Tables]], knobs: CheckKnobs
) -> tuple[pl.DataFrame, dict[str, float]]:
    """List the defects of a screen.

    Parameters
    ----------
    experiments : function without arguments
        Yields wells and images of one experiment after another; called twice.
    knobs : CheckKnobs
        What a plate needs.

    Returns
    -------
    defects : DataFrame
        ``DEFECTS`` format: one row a place and defect, most frequent level first.
    shares : dict of str to float
        Share of the screen's images, wells, plates and experiments that have a defect.

    Notes
    -----
    Beside one experiment's tables, memory grows by sixteen bytes an image. A screen of 180
    experiments (2.2 million wells, 8.9 million images of six files each) takes half a
    minute and 0.9 GB on one core.
    """
    found = survey(experiments())
    parts, n_bad = [DEFECTS.empty()], dict.fromkeys(LEVELS, 0)
    for wells, images in experiments():
        items = experiment_defects(wells, images, found, knobs)
        for (level,), some in items.group_by("level"):
            n_bad[str(level)] += some["item"].n_unique()
        parts.append(_summary(items, wells, images))
    order = pl.col("level").replace_strict({one: at for at, one in enumerate(LEVELS)})
    defects = pl.concat(parts).sort(order, "defect", "experiment", "plate", nulls_last=True)
    return defects, {level: n_bad[level] / max(found.n[level], 1) for level in LEVELS}


def experiment_defects(
    wells: pl.DataFrame, images: pl.DataFrame, found: Survey, knobs: CheckKnobs
) -> pl.DataFrame:
    """List each defect of one experiment: ``plate, item, defect, level``, one row an item."""
    placed = images.join(
        wells.select("well_id", "plate"), on="well_id", how="left", maintain_order="left"
    )
    # A screen of profiles has no images, so no well lacks its own.
    lost_wells = pl.lit(found.n["image"] > 0) & ~pl.col("well_id").is_in(
        images["well_id"].implode()
    )
    controls = wells.group_by("plate").agg(
        n=(pl.col("role") == "negative_control").sum(), item="plate"
    )
    parts = [
        _items(placed, "image_id", _image_defects(placed, found)),
        _items(
            wells,
            "well_id",
            {
                "well_without_image": lost_wells,
                "well_without_label": pl.lit(unlabelled(wells)),
                "repeated_well": pl.struct("plate", "row", "column").is_duplicated()
                | pl.lit(digests(wells["well_id"]).is_in(found.repeated_wells.implode())),
            },
        ),
        controls.filter(pl.col("n") < knobs.min_controls).select(
            "plate", item="plate", defect=pl.lit("plate_without_controls")
        ),
    ]
    if without_pair(wells, found):
        name = wells["experiment"][0]
        row = {"plate": None, "item": name, "defect": "experiment_without_pair"}
        parts.append(pl.DataFrame([row], schema=_ITEMS))
    level = {defect: level for defect, (level, _) in MEND.items()}
    return pl.concat(parts).with_columns(level=pl.col("defect").replace_strict(level))


def refusal(shares: dict[str, float], knobs: CheckKnobs) -> str:
    """Tell which share of defects is above its limit; an empty text if none is."""
    limits = {level: getattr(knobs, f"max_{level}s") for level in LEVELS}
    return "; ".join(
        f"{shares[level]:.1%} of the {level}s have a defect, wanted at most "
        f"{limits[level]:.1%} (qc.check.max_{level}s)"
        for level in LEVELS
        if shares[level] > limits[level]
    )


def _image_defects(images: pl.DataFrame, found: Survey) -> dict[str, pl.Expr]:
    """Which images have which defect; those that cannot be read have no size."""
    readable = pl.col("height") > 0
    height, width, channels = found.usual or (0, 0, 0)
    odd_channels = readable & (pl.col("channels") != channels)
    odd_size = (pl.col("height") != height) | (pl.col("width") != width)
    # Set aside though it is like most of the screen: its own experiment is what is unusual.
    aside = pl.col("index").is_null() & ~odd_channels
    files = images.select("image_id", file=pl.col("uri").str.split("|")).explode("file")
    twice = files.filter(pl.col("file").is_not_null() & pl.col("file").is_duplicated())
    repeated = digests(images["uri"]).is_in(found.repeated_images.implode())
    return {
        "unreadable_image": ~readable,
        "unusual_size": readable & (odd_size | aside),
        "unusual_channels": odd_channels,
        "repeated_image": pl.col("image_id").is_in(twice["image_id"].implode())
        | (pl.col("uri").is_not_null() & pl.lit(repeated)),
        "image_without_well": pl.col("plate").is_null(),
    }


def _items(frame: pl.DataFrame, name: str, defects: dict[str, pl.Expr]) -> pl.DataFrame:
    """One row an item and defect."""
    return pl.concat(
        frame.filter(where).select("plate", item=name, defect=pl.lit(defect))
        for defect, where in defects.items()
    )


def _summary(items: pl.DataFrame, wells: pl.DataFrame, images: pl.DataFrame) -> pl.DataFrame:
    """Count an experiment's defects by plate, with how many were checked there."""
    if items.is_empty():
        return DEFECTS.empty()
    sites = images.join(wells.select("well_id", "plate"), on="well_id", how="left")
    n_checked = pl.concat(
        [
            sites.group_by("plate").agg(n_checked=pl.len(), level=pl.lit("image")),
            wells.group_by("plate").agg(n_checked=pl.len(), level=pl.lit("well")),
            wells.group_by("plate").agg(n_checked=pl.lit(1, pl.UInt32), level=pl.lit("plate")),
            pl.DataFrame(
                {"plate": None, "n_checked": 1, "level": "experiment"},
                schema={"plate": pl.String, "n_checked": pl.UInt32, "level": pl.String},
            ),
        ],
        how="diagonal",
    )
    first = pl.col("item").sort().head(EXAMPLES).implode().list.join(", ")
    mend = {defect: mend for defect, (_, mend) in MEND.items()}
    return (
        items.group_by("plate", "level", "defect")
        .agg(n=pl.len(), examples=first)
        .join(n_checked, on=["plate", "level"], how="left", nulls_equal=True)
        .select(
            pl.lit(wells["experiment"][0]).alias("experiment"),
            "plate",
            "level",
            "defect",
            pl.col("n", "n_checked").cast(pl.Int64),
            "examples",
            pl.col("defect").replace_strict(mend).alias("mend"),
        )
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``qc_check``."""
    files, knobs = parse_step(
        CheckKnobs,
        inputs=["wells*", "images*"],
        outputs=["defects"],
        names=["screen"],
        doc=__doc__,
        argv=argv,
    )

    if not files.wells or len(files.wells) != len(files.images):
        raise UserError(
            f"{files.screen}: {len(files.wells)} tables of wells and {len(files.images)} of"
            " images, wanted both of every experiment"
        )

    def experiments() -> Iterator[Tables]:
        for path, images in zip(files.wells, files.images, strict=True):
            wells = read_wells(path)
            if wells.is_empty():
                raise UserError(f"{path}: no well, wanted at least one")
            yield wells, read_images(images)

    defects, shares = check_screen(experiments, knobs)
    for row in (
        defects.group_by("level", "defect", maintain_order=True).agg(pl.col("n").sum()).rows()
    ):
        print(f"{files.screen}: {row[1]}: {row[2]} {row[0]}s")
    told = refusal(shares, knobs)
    # Snakemake deletes what a failed job was to make, so the user is left a table beside it.
    kept = files.defects.with_suffix(".tsv")
    if told:
        _keep(defects, kept)
        raise UserError(f"{files.screen}: {told}; all defects are listed in {kept}")
    kept.unlink(missing_ok=True)
    write_defects(files.defects, defects, files.stamp)


def _keep(defects: pl.DataFrame, path: Path) -> None:
    with atomic(path) as temporary:
        defects.write_csv(temporary, separator="\t")


if __name__ == "__main__":
    run_step(main)
