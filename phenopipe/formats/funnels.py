"""funnel.json: what is left of a data set after every step of its curation (paper A.1)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.errors import UserError
from phenopipe.formats.applied import Applied, Mask, numbered
from phenopipe.formats.tables import Stamp, read_json, write_json
from phenopipe.formats.wells import GENE_KINDS, ROLES

COUNTED = ("images", "wells", "conditions", "genes", "compounds")


class Census:
    """Counts conditions, genes and compounds among targets.

    Parameters
    ----------
    applied : Applied
        All wells; only the names of their targets count.
    """

    def __init__(self, applied: Applied) -> None:
        kind, perturbation, gene = (
            applied.targets[name] for name in ("kind", "perturbation", "gene")
        )
        of_condition_T, _ = applied.conditions
        genetic = kind.is_in(GENE_KINDS)
        self._numbers = {
            "conditions": of_condition_T.astype(np.int64),
            "genes": _numbered(gene, genetic & gene.is_not_null()),
            "compounds": _numbered(perturbation, kind == "compound"),
        }

    def count(self, found_T: Mask) -> dict[str, int]:
        """Count those of some targets; each counts once however many targets share it."""
        counts = {}
        for name, number_T in self._numbers.items():
            seen = np.zeros(int(number_T.max(initial=-1)) + 2, dtype=bool)
            seen[number_T[found_T]] = True
            # The last place stands for the targets that have none.
            counts[name] = int(np.count_nonzero(seen[:-1]))
        return counts


def _numbered(names: pl.Series, counts: pl.Series) -> NDArray[np.int64]:
    """Number equal names; -1 where a name does not count."""
    number = numbered(names).cast(pl.Int64)
    return pl.select(pl.when(counts).then(number).otherwise(-1)).to_series().to_numpy()


def funnel_rows(
    first: int, names: Sequence[str], applied: Applied, passed_W: NDArray[np.uint8]
) -> list[dict[str, Any]]:
    """Count what each step of the curation left over.

    Parameters
    ----------
    first : int
        Number of the first of these steps in paper A.1, 0 for what came in.
    names : list of str
        What each step does, in a word or two.
    applied : Applied
        All wells.
    passed_W : uint8 array of shape (n_wells,)
        How many of these steps, one after the other, each well passed.

    Returns
    -------
    list of dict
        For each step ``step, name, images, wells, conditions, genes, compounds`` and
        ``roles``, the wells of each role. Conditions, genes and compounds count once
        however many wells have them.
    """
    shape = (len(names) + 1, len(ROLES))
    place_W = passed_W * np.uint8(len(ROLES)) + applied.role_W
    tallies = applied.tallied(place_W, shape[0] * shape[1])
    wells_PR, images_PR = (tally.reshape(shape) for tally in tallies)
    most_T = applied.most_of_targets(passed_W)
    census = Census(applied)
    found = []
    for k, name in enumerate(names, start=1):
        roles = dict(zip(ROLES, wells_PR[k:].sum(axis=0).tolist(), strict=True))
        found.append(
            {
                "step": first + k - 1,
                "name": name,
                "images": int(images_PR[k:].sum()),
                "wells": sum(roles.values()),
                **census.count(most_T >= k),
                "roles": {role: roles[role] for role in sorted(roles) if roles[role]},
            }
        )
    return found


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
