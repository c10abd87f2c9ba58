"""Step ``maps``: a map of biology as an AnnData file, one row a gene or compound."""

from collections.abc import Sequence

import h5py
import polars as pl

from phenopipe.export.annotated import write_annotated
from phenopipe.export.config import MapsKnobs
from phenopipe.export.metadata import feature_names
from phenopipe.export.wells import provenance
from phenopipe.formats.atomic import atomic
from phenopipe.formats.maps import MAP
from phenopipe.formats.tables import read_table
from phenopipe.knobs import parse_step, run_step


def name_entities(table: pl.DataFrame) -> pl.Series:
    """Name each row of a map: its gene or compound, with kind and dose where needed.

    Examples
    --------
    >>> table = pl.DataFrame(
    ...     {
    ...         "entity": ["A", "B", "B"],
    ...         "kind": ["knockout", "compound", "compound"],
    ...         "concentration_um": [None, 1.0, 10.0],
    ...     }
    ... )
    >>> name_entities(table).to_list()
    ['A', 'B at 1.0 µM', 'B at 10.0 µM']
    """
    dosed = pl.coalesce(pl.format("{} at {} µM", "entity", "concentration_um"), "entity")
    names = table.select(name=dosed, kind="kind")
    full = pl.format("{} ({})", "name", "kind")
    return names.select(pl.when(pl.col("name").is_duplicated()).then(full).otherwise("name"))[
        "name"
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``export_maps``."""
    files, _ = parse_step(
        MapsKnobs,
        inputs=["map"],
        outputs=["exported"],
        names=["benchmark", "encoder"],
        doc=__doc__,
        argv=argv,
    )
    table = read_table(files.map, MAP)
    x_GD = table["embedding"].to_numpy()
    obs = table.drop("embedding").with_columns(name=name_entities(table))
    told = {"phenopipe": provenance(files.stamp, [files.map])}
    names = feature_names(x_GD.shape[1])
    with atomic(files.exported) as temporary, h5py.File(temporary, "w") as root:
        write_annotated(root, obs, [x_GD], names, index="name", told=told)


if __name__ == "__main__":
    run_step(main)
