"""An experiment's wells that pass qc, with their raw embeddings and who is fitted."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.embeddings import read_attributes, read_block, read_well_ids
from phenopipe.formats.qc import passing_wells
from phenopipe.seeds import hash_uniform


class Embedded(NamedTuple):
    """Wells of one experiment and their embeddings, row by row.

    Attributes
    ----------
    wells : DataFrame
        Columns of the wells format.
    x : float array of shape (n_wells, n_features)
        Embeddings at the last block, all finite.
    """

    wells: pl.DataFrame
    x: NDArray[np.floating]


class Fitted(NamedTuple):
    """Wells of one experiment that fits may see.

    Attributes
    ----------
    controls : bool array of shape (n_wells,)
        Controls that are not held out.
    wells : bool array of shape (n_wells,)
        Wells of any role that are not held out.
    """

    controls: NDArray[np.bool_]
    wells: NDArray[np.bool_]


def read_embedded(embeddings: Path, wells: Path) -> Embedded:
    """Read the wells of one experiment that pass qc and have a finite embedding.

    Notes
    -----
    Sorted by ``well_id``: sums over wells come out the same however the files are sorted.

    Raises
    ------
    UserError
        If a well that passes qc has no row among the embeddings.
    """
    passing = passing_wells([wells]).sort("well_id")
    row_of = {well_id: row for row, well_id in enumerate(read_well_ids(embeddings))}
    rows = [row_of.get(well_id) for well_id in passing["well_id"]]
    if None in rows:
        missing = passing["well_id"][rows.index(None)]
        raise UserError(f"{embeddings}: no embedding of well {missing}, which passes qc")
    x_WD = read_block(embeddings)[np.array(rows, dtype=np.int64)]
    finite_W = np.isfinite(x_WD).all(axis=1)
    if not finite_W.all():
        print(f"{embeddings}: {(~finite_W).sum()} wells without a finite embedding set aside")
    return Embedded(passing.filter(finite_W), x_WD[finite_W])


def encoder_behind(embeddings: Sequence[Path], known: str | None = None) -> str | None:
    """Fingerprint of the encoder behind some embeddings; None where a store names none.

    Parameters
    ----------
    embeddings : list of Path
        Stores that must come from one encoder (or hold the same features).
    known : str
        The fingerprint that they must have, if it is known.

    Raises
    ------
    UserError
        If they differ: equal numbers of features do not make them the same features.
    """
    for path in embeddings:
        found = read_attributes(path).get("encoder")
        if known is not None and found is not None and found != known:
            raise UserError(
                f"{path}: embeddings of encoder or features {found}, wanted {known} as in the"
                " other experiments"
            )
        known = known or found
    return known


def fitted_wells(wells: pl.DataFrame, role: str, holdout: float, seed: int) -> Fitted:
    """Tell which wells of one experiment fits may see.

    Parameters
    ----------
    wells : DataFrame
        Wells of one experiment.
    role : str
        Role of the controls.
    holdout : float
        Share of the controls, and of the other wells, that is left out; rounded down, so
        that one of each always stays.
    seed : int
        Seed of the choice: the smallest hashes of (seed, ``well_id``) are left out.

    Returns
    -------
    Fitted
        Two masks over the wells.
    """
    is_control_W = (wells["role"] == role).to_numpy()
    hash_W = hash_uniform(seed, wells["well_id"])
    is_fitted_W = np.ones(wells.height, dtype=bool)
    for group_W in (is_control_W, ~is_control_W):
        rows = np.flatnonzero(group_W)
        is_fitted_W[rows[np.argsort(hash_W[rows])[: int(holdout * len(rows))]]] = False
    return Fitted(is_control_W & is_fitted_W, is_fitted_W)


def require_controls(
    is_fitted_W: NDArray[np.bool_], wells: Path, experiment: str, role: str, wanted: int = 1
) -> None:
    """Raise if an experiment has too few controls to be aligned.

    Raises
    ------
    UserError
        One line that names the file, the experiment and the role.
    """
    found = int(is_fitted_W.sum())
    if found < wanted:
        raise UserError(
            f"{wells}: experiment {experiment} has {found} wells of role {role} that pass qc"
            f" and are not held out, wanted at least {wanted}"
        )


def cell_type_of(wells: pl.DataFrame) -> str:
    """Name the cell type of an experiment's wells; several are joined."""
    return "+".join(sorted(wells["cell_type"].drop_nulls().unique().to_list()))
