"""What the curation must know of every well, read once, experiment by experiment."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from phenopipe.formats.applied import Coded, Mask, Vocabulary
from phenopipe.formats.qc import FAILS, METADATA_TESTS
from phenopipe.formats.wells import COUNTED
from phenopipe.undersample.config import WellsKnobs
from phenopipe.undersample.hashing import uniform_of_ids

_COLUMNS = ("screen", "experiment", "role", "well_id", "passes", *COUNTED)
Run = tuple[tuple[str, str], int]


@dataclass(frozen=True)
class Survey:
    """Some wells as numbers.

    Attributes
    ----------
    coded : Coded
        What was applied to them.
    good_W, known_W : bool arrays of shape (n_wells,)
        Wells that pass the tests of data quality; those that pass all tests.
    drawn_W : bool array of shape (n_wells,)
        Wells that undersampling would leave.
    runs : list of ((screen, experiment), int)
        Experiment of the wells, and how many follow each other in it.
    flagged : dict of str to int
        Wells that fail each test.
    """

    coded: Coded
    good_W: Mask
    known_W: Mask
    drawn_W: Mask
    runs: list[Run]
    flagged: dict[str, int]


def is_looked_at(column: str) -> bool:
    """Whether a column of the qc table is read to survey it."""
    return column in _COLUMNS or column.startswith(FAILS)


def survey(wells: pl.DataFrame, vocabulary: Vocabulary, knobs: WellsKnobs) -> Survey:
    """Code the wells of some experiments.

    Parameters
    ----------
    wells : DataFrame
        The columns that :func:`is_looked_at` names.
    vocabulary : Vocabulary
        Numbers the conditions.
    knobs : WellsKnobs
        Shares and seed of the draw.
    """
    shares = {
        "positive_control": knobs.keep_positive_controls,
        "empty": knobs.keep_empty,
        "negative_control": knobs.keep_negative_controls,
    }
    tests = sorted(name for name in wells.columns if name.startswith(FAILS))
    quality = [name for name in tests if name.removeprefix(FAILS) not in METADATA_TESTS]
    # A test that an experiment did not need (of features, say) is null there.
    fails = [pl.col(name).fill_null(value=False) for name in quality]
    good = wells.select(good=~pl.any_horizontal(pl.lit(value=False), *fails))["good"]
    runs = (
        wells.select(pl.struct("screen", "experiment").rle()).unnest("screen").unnest("value")
    )
    return Survey(
        coded=vocabulary.code(wells),
        good_W=good.to_numpy(),
        known_W=(good & wells["passes"]).to_numpy(),
        drawn_W=drawn(wells, shares, knobs.seed),
        runs=[((screen, name), n) for n, screen, name in runs.iter_rows()],
        flagged={name.removeprefix(FAILS): int(wells[name].sum()) for name in tests},
    )


def drawn(wells: pl.DataFrame, shares: Mapping[str, float], seed: int) -> Mask:
    """Which wells undersampling leaves: a share of each named role, and all others.

    Notes
    -----
    Paper A.1 step 4. A well stays if the hash of (seed, ``well_id``) is below its share:
    wells that are added later change no earlier choice, nor does their order.
    """
    stays_W = np.ones(wells.height, dtype=bool)
    for role, share in shares.items():
        (of_role,) = np.nonzero((wells["role"] == role).to_numpy())
        ids = wells["well_id"].gather(of_role)
        stays_W[of_role] = uniform_of_ids(seed, ids) < share
    return stays_W
