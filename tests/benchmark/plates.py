"""Aligned wells for the benchmarks' tests."""

import numpy as np
import polars as pl

from phenopipe.benchmark.treated import single_treatments
from phenopipe.formats.aligned import write_aligned
from phenopipe.formats.wells import COLUMNS, well_name

SHARED_NAMES = {"screen": "s", "block": 3, "trimmed": True}


def treatment(perturbation, kind="knockout", gene=None, dose=None):
    guide = perturbation if kind == "knockout" else None
    return {
        "perturbation": perturbation,
        "kind": kind,
        "gene": gene,
        "guide": guide,
        "concentration_um": dose,
    }


def wells_of(
    treatments, *, experiment="e1", plate="p1", layout="l1", role=None, cell_type="HUVEC"
):
    """One plate: a well for each list of treatments; an empty list is a negative control."""
    rows = [
        {
            "screen": "s",
            "experiment": experiment,
            "plate": plate,
            "well": well_name(at // 24 + 1, at % 24 + 1),
            "row": at // 24 + 1,
            "column": at % 24 + 1,
            "cell_type": cell_type,
            "role": role or ("perturbation" if one else "negative_control"),
            "treatments": one,
            "layout": layout,
            "well_id": f"{experiment}/{plate}/{at:04d}",
        }
        for at, one in enumerate(treatments)
    ]
    return pl.DataFrame(rows, schema={name: dtype for name, (dtype, _) in COLUMNS.items()})


def knockouts(genes, guides=2, replicates=2):
    """A list of treatments for each well: every guide of every gene, replicated."""
    return [
        [treatment(f"{gene}_guide_{guide}", gene=gene)]
        for gene in genes
        for guide in range(1, guides + 1)
        for _ in range(replicates)
    ]


def treated_of(wells, x_WD):
    return single_treatments(wells, np.asarray(x_WD, dtype=np.float32), SHARED_NAMES)


def save_aligned(path, wells, x_WD, stamp=None):
    write_aligned(path, wells.with_columns(fitted=pl.lit(False)), x_WD, stamp or {})
    return path
