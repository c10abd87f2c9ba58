"""history.parquet: what every update of a training told, one row an update."""

import polars as pl

from phenopipe.formats.tables import Schema

HISTORY = Schema(
    "history",
    {
        "update": (pl.Int64, "optimizer step, from 1"),
        "epoch": (pl.Float64, "passes through the data at the end of the update"),
        "loss": (pl.Float64, "what was minimized, mean over the batch"),
        "lr": (pl.Float64, "learning rate of the update"),
        "gradient_norm": (pl.Float64, "before clipping"),
    },
    unique=("update",),
    # skipped: the update was not made (older trainings do not tell). Parts of the loss: l2 and
    # fourier of an autoencoder, accuracy of a classifier; dino, ibot, koleo and entropy of a
    # student and its teacher, and what is measured now and then, null between: of held-out
    # images, and accuracies of probes on every block.
    extra=(
        *("skipped", "l2", "fourier", "accuracy", "dino", "ibot", "koleo", "entropy"),
        *("held_out_", "probe_"),
    ),
)
