"""Read one experiment of a screen that comes as a table of features."""

from collections.abc import Sequence

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.images import IMAGES, write_images
from phenopipe.formats.profiles import write_profiles
from phenopipe.formats.wells import write_wells
from phenopipe.knobs import parse_step, run_step
from phenopipe.screen.columns import (
    ROW,
    TABLE,
    columns_read,
    place,
    read_rows,
    select_rows,
)
from phenopipe.screen.config import ProfilesKnobs
from phenopipe.screen.user_wells import one_row_a_well, wells_of_rows


def feature_columns(rows: pl.DataFrame, knobs: ProfilesKnobs) -> list[str]:
    """Columns that are features: no metadata, not left out, with a prefix if any is named.

    A column that says which well a row is about, what was done to it or which experiment it
    belongs to (``columns``, ``where``) is metadata, whatever its name: a dose or a week among
    the features would tell what they are to find out.

    Raises
    ------
    UserError
        If none is left, a feature is no number, or ``leave_out`` names no column.
    """
    for name in knobs.leave_out:
        if name not in rows.columns:
            raise UserError(f"{rows[TABLE][0]}: no column {name!r}, wanted by leave_out")
    metadata = columns_read(knobs.columns) | set(knobs.where) | {TABLE, ROW}
    wanted = tuple(knobs.feature_prefixes) or ("",)
    names = [
        name
        for name in rows.columns
        if name not in metadata
        and not (knobs.metadata_prefix and name.startswith(knobs.metadata_prefix))
        and name.startswith(wanted)
        and name not in knobs.leave_out
    ]
    if not names:
        raise UserError(
            f"{rows[TABLE][0]}: no feature column among {len(rows.columns)}, wanted one that is"
            " no metadata (columns, where, metadata_prefix, feature_prefixes, leave_out)"
        )
    schema = rows.schema
    for name in names:
        if not (schema[name].is_numeric() or schema[name] == pl.Null):
            raise UserError(
                f"{rows[TABLE][0]}: feature {name!r} holds {schema[name]}, wanted "
                "numbers; name it in leave_out or give metadata_prefix"
            )
    return names


def gather(
    rows: pl.DataFrame, knobs: ProfilesKnobs, *, screen: str, experiment: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Wells of one experiment and their features.

    Returns
    -------
    wells : DataFrame
        Wells format.
    profiles : DataFrame
        ``well_id`` and one float32 column a feature, in the order of wells; what is blank
        or infinite in the table is NaN, so that qc flags the well.

    Raises
    ------
    UserError
        If the table lacks something, has two rows for a well, or a feature is missing in
        too many wells. A feature is never left out on its own: experiments of one screen
        must agree about their features.
    """
    chosen = select_rows(rows, knobs.where)
    listed = wells_of_rows(chosen, knobs, screen=screen, experiment=experiment)
    _check_once(listed, chosen)
    names = feature_columns(chosen, knobs)
    features = chosen.select(pl.col(names).cast(pl.Float32)).with_columns(
        pl.when(pl.all().is_finite()).then(pl.all()).otherwise(float("nan")).cast(pl.Float32)
    )
    shares = features.select(pl.all().is_nan().mean())
    worst = [name for name in names if shares[name][0] > knobs.max_missing]
    if worst:
        raise UserError(
            f"{chosen[TABLE][0]}: {len(worst)} features are missing in more than "
            f"{knobs.max_missing:.0%} of the wells of {experiment} (max_missing), wanted them "
            f"named in leave_out: {', '.join(worst[:5])}{', ...' if len(worst) > 5 else ''}"
        )
    wells = one_row_a_well(listed, chosen)
    profiles = pl.concat([listed.select("well_id"), features], how="horizontal")
    return wells, wells.select("well_id").join(
        profiles, on="well_id", how="left", maintain_order="left"
    )


def _check_once(wells: pl.DataFrame, rows: pl.DataFrame) -> None:
    doubled = wells["well_id"].is_duplicated()
    if doubled.any():
        at = doubled.arg_true().to_list()
        well_id = wells["well_id"][at[0]]
        again = next(one for one in at[1:] if wells["well_id"][one] == well_id)
        raise UserError(
            f"{place(rows, again)}: well {well_id} is already in {place(rows, at[0])}, "
            "wanted one row a well"
        )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the step from the command line."""
    files, knobs = parse_step(
        ProfilesKnobs,
        inputs=["table*"],
        outputs=["wells", "images", "profiles"],
        names=["screen", "experiment"],
        doc=__doc__,
        argv=argv,
    )
    rows = read_rows(files.table)
    wells, profiles = gather(rows, knobs, screen=files.screen, experiment=files.experiment)
    write_profiles(files.profiles, profiles, files.stamp)
    write_images(files.images, IMAGES.empty(), files.stamp)
    write_wells(files.wells, wells, files.stamp)
    print(f"{files.experiment}: {wells.height} wells, {profiles.width - 1} features")


if __name__ == "__main__":
    run_step(main)
