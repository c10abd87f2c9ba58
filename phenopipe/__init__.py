"""The library behind the rules: one package per stage, one ground floor below them."""

import os

__version__ = "0.1.0"


def _share_threads() -> None:
    """Give polars and zarrs the threads that a job has.

    Snakemake tells BLAS and torch by ``OMP_NUM_THREADS``. What the user set stays; what an
    importing process set for itself, a job of other threads may have inherited.
    """
    threads = os.environ.get("OMP_NUM_THREADS")
    inherited = os.environ.get("PHENOPIPE_THREADS")
    if threads and os.environ.get("POLARS_MAX_THREADS") in (None, inherited):
        names = ("POLARS_MAX_THREADS", "RAYON_NUM_THREADS", "PHENOPIPE_THREADS")
        os.environ.update(dict.fromkeys(names, threads))


_share_threads()
