"""funnel.json: what is left of a data set after every step of its curation (paper A.1)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from phenopipe.errors import UserError
from phenopipe.formats.applied import Applied, Mask
from phenopipe.formats.tables import Stamp, read_json, write_json
from phenopipe.formats.wells import CONDITION, ROLES

GENETIC_KINDS = ("knockout", "sirna")
COUNTED = ("images", "wells", "conditions", "genes", "compounds")


def funnel_row(step: int, name: str, applied: Applied, chosen_W: Mask) -> dict[str, Any]:
    """Count what a step of the curation left over.

    Parameters
    ----------
    step : int
        Step of paper A.1, 0 for what came in.
    name : str
        What the step does, in a word or two.
    applied : Applied
        All wells.
    chosen_W : bool array of shape (n_wells,)
        Wells that are left.

    Returns
    -------
    dict
        ``step, name, images, wells, conditions, genes, compounds`` and ``roles``, the wells
        of each role. Conditions, genes and compounds count once however many wells have them.
    """
    found = applied.targets.filter(pl.Series(applied.targets_in(chosen_W)))
    genes = found.filter(pl.col("kind").is_in(GENETIC_KINDS))["gene"].drop_nulls()
    compounds = found.filter(pl.col("kind") == "compound")["perturbation"]
    roles = {
        role: int(np.count_nonzero(chosen_W & (applied.role_W == code)))
        for code, role in sorted(enumerate(ROLES), key=lambda pair: pair[1])
    }
    return {
        "step": step,
        "name": name,
        "images": int(applied.images_W.sum(where=chosen_W, dtype=np.int64)),
        "wells": int(np.count_nonzero(chosen_W)),
        "conditions": found.select(CONDITION).n_unique(),
        "genes": genes.n_unique(),
        "compounds": compounds.n_unique(),
        "roles": {role: count for role, count in roles.items() if count},
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
