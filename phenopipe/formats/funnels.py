"""funnel.json: what is left of a data set after every step of its curation (paper A.1)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.tables import Stamp, read_json, write_json
from phenopipe.formats.wells import CONDITION, conditions

GENETIC_KINDS = ("knockout", "sirna")
COUNTED = ("images", "wells", "conditions", "genes", "compounds")


def funnel_row(
    step: int, name: str, wells: pl.DataFrame, images: pl.DataFrame
) -> dict[str, Any]:
    """Count what a step of the curation left over.

    Parameters
    ----------
    step : int
        Step of paper A.1, 0 for what came in.
    name : str
        What the step does, in a word or two.
    wells : DataFrame
        Wells that are left, with ``well_id``, ``role`` and ``treatments``.
    images : DataFrame
        ``well_id`` of every image; images of other wells are not counted.

    Returns
    -------
    dict
        ``step, name, images, wells, conditions, genes, compounds`` and ``roles``, the wells
        of each role. Conditions, genes and compounds count once however many wells have them.
    """
    applied = conditions(wells)
    genes = applied.filter(pl.col("kind").is_in(GENETIC_KINDS))["gene"].drop_nulls()
    compounds = applied.filter(pl.col("kind") == "compound")["perturbation"]
    roles = wells.group_by("role").len().sort("role")
    return {
        "step": step,
        "name": name,
        "images": images.join(wells.select("well_id"), on="well_id", how="semi").height,
        "wells": wells.height,
        "conditions": applied.select(CONDITION).n_unique(),
        "genes": genes.n_unique(),
        "compounds": compounds.n_unique(),
        "roles": dict(zip(roles["role"].to_list(), roles["len"].to_list(), strict=True)),
    }


def write_funnel(path: Path, funnel: Mapping[str, Any], stamp: Stamp) -> None:
    """Write a funnel: ``steps``, a list of rows, and further counts beside it."""
    assert all({*COUNTED, "step", "name"} <= row.keys() for row in funnel["steps"])
    write_json(path, funnel, stamp)


def read_funnel(path: Path) -> dict[str, Any]:
    """Read a funnel.

    Raises
    ------
    UserError
        If the file holds no list of steps.
    """
    funnel = read_json(path)
    if not isinstance(funnel.get("steps"), list):
        raise UserError(f"{path}: no list 'steps', wanted a funnel.json that a rule made")
    return funnel
