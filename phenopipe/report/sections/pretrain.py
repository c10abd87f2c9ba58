"""Section pretrain: loss curves, and what the autoencoder paints where it saw nothing.

Shape suffixes: N images, C channels, H height, W width.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import numpy as np
import polars as pl
from numpy.typing import NDArray

from phenopipe.report.charts import data_of, specification
from phenopipe.report.pieces import Figure, Fold, Pictures, Piece, Section, Table, tell
from phenopipe.report.sections.distilled import distilled
from phenopipe.report.thumbnails import channel_colours, compose, data_uri

POINTS = 240
IMAGES_SHOWN = 4
PARTS = {
    **{"loss": "loss", "l2": "L2", "fourier": "Fourier", "accuracy": "accuracy"},
    **{"dino": "DINO", "ibot": "iBOT", "koleo": "KoLeo"},
}
# What has such a part in its loss.
KINDS = {"l2": "autoencoders", "dino": "students of a teacher"}
GREY = 0.5
GAP = 6
PANEL_WIDTH = 420

Arrays = Mapping[str, NDArray[np.generic]]


def pretrain_section(
    histories: dict[str, pl.DataFrame],
    painted: dict[str, Arrays],
    panels: Mapping[str, Sequence[Path]] | None = None,
) -> Section:
    """Show how each training went.

    Parameters
    ----------
    histories : mapping of str to DataFrame
        History of each encoder.
    painted : mapping of str to mapping of arrays
        ``l2, input, output, mask, channels`` of each autoencoder's held-out images.
    panels : mapping of str to list of Path
        Pictures that each autoencoder left while it trained, in the order of its updates.
    """
    pieces: list[Piece] = []
    answer = ""
    if histories:
        pieces.append(_table(histories, painted))
        for kind, names in _kinds(histories).items():
            curves = pl.concat([thinned(histories[name], name) for name in names])
            pieces.append(_curves(curves, kind))
        pieces += distilled(histories)
        for number, (encoder, arrays) in enumerate(painted.items()):
            pictures = _panels(encoder, arrays)
            title = f"Reconstructions of {encoder}"
            pieces.append(pictures if number == 0 else Fold(title, [pictures]))
        for encoder, paths in (panels or {}).items():
            if paths:
                pieces.append(Fold(f"How {encoder} learned to paint", [_progress(paths)]))
        answer = f"encoders trained: {', '.join(histories)}"
    return Section(
        "pretrain",
        "Pretraining",
        "How did the encoders learn?",
        pieces,
        "results/pretrain",
        "No encoder was trained in this run.",
        answer,
    )


def thinned(history: pl.DataFrame, encoder: str) -> pl.DataFrame:
    """Average a history over equal stretches of updates: at most ``POINTS`` rows a part."""
    step = max(1, -(-history.height // POINTS))
    parts = [name for name in PARTS if name in history.columns]
    averaged = (
        history.sort("update")
        .with_columns(stretch=(pl.col("update") - 1) // step)
        .group_by("stretch", maintain_order=True)
        .agg(
            pl.col("update").last(), pl.col("epoch").last(), *(pl.col(p).mean() for p in parts)
        )
    )
    long = averaged.unpivot(parts, index=["update", "epoch"], variable_name="part")
    return long.with_columns(
        encoder=pl.lit(encoder),
        part=pl.col("part").replace_strict(PARTS),
        value=pl.col("value").cast(pl.Float64),
    )


def _kinds(histories: dict[str, pl.DataFrame]) -> dict[str, list[str]]:
    """Sort encoders by the parts that their loss has, as these share axes."""
    kinds: dict[str, list[str]] = {}
    for name, history in histories.items():
        kind = next(
            (kind for part, kind in KINDS.items() if part in history.columns), "classifiers"
        )
        kinds.setdefault(kind, []).append(name)
    return kinds


def _curves(curves: pl.DataFrame, kind: str) -> Figure:
    """Draw each part of the loss against updates, one line an encoder."""
    order = [p for p in PARTS.values() if p in curves["part"].to_list()]
    chart = (
        alt.Chart(data_of(curves.select("encoder", "part", "update", "value")))
        .mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X("update:Q", title="update", axis=alt.Axis(tickCount=4)),
            y=alt.Y(
                "value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5)
            ),
            color=alt.Color("encoder:N", title=None),
            tooltip=["encoder:N", "update:Q", alt.Tooltip("value:Q", format=".4f")],
        )
        .properties(width=230, height=170)
        .facet(facet=alt.Facet("part:N", title=None, sort=order), columns=3)
        .resolve_scale(y="independent")
    )
    return Figure(specification(chart), f"Training of the {kind}: batch means over updates.")


def _table(histories: dict[str, pl.DataFrame], painted: dict[str, Arrays]) -> Piece:
    rows = []
    for name, history in histories.items():
        finite = history["gradient_norm"].is_finite()
        tail = history.tail(max(1, history.height // 20))
        l2 = painted.get(name, {}).get("l2")
        error = float(np.mean(np.asarray(l2, dtype=np.float64))) if l2 is not None else None
        rows.append(
            [
                name,
                tell(history.height),
                tell(float(history["epoch"].max() or 0), 1),  # type: ignore[arg-type]
                tell(float(history["loss"][0])),
                tell(float(tail["loss"].mean() or 0)),  # type: ignore[arg-type]
                tell(error),
                tell(int(history.get_column("skipped", default=~finite).sum())),
            ]
        )
    header = [
        *("encoder", "updates", "epochs", "first loss", "last loss", "held-out L2"),
        "skipped",
    ]
    caption = (
        "Last loss: mean of the last twentieth of the updates. Held-out L2: error on masked "
        "patches of images never trained on; 1 would be as good as knowing only each channel's "
        "mean. Skipped: updates that were not made, their gradient too long or not finite."
    )
    return Table(header, rows, caption, frozenset(range(1, 7)))


def _panels(encoder: str, arrays: Arrays) -> Piece:
    """Show input, what the encoder saw of it, and what came out, side by side."""
    pictures = []
    colours = channel_colours([str(name) for name in arrays["channels"]])
    for number in range(min(IMAGES_SHOWN, len(arrays["input"]))):
        given = np.asarray(arrays["input"][number], dtype=np.float64)
        out = np.asarray(arrays["output"][number], dtype=np.float64)
        hidden = np.asarray(arrays["mask"][number]) > 0
        low_C, high_C = (np.percentile(given, q, axis=(1, 2)) for q in (2.0, 99.8))
        whole = compose(given, low_C, high_C, colours)
        painted = compose(np.where(hidden, out, given), low_C, high_C, colours)
        # A pixel is grey by the share of its channels that were hidden.
        veil = hidden.mean(axis=0)[..., None]
        seen = (whole * (1 - veil) + 255 * GREY * veil).astype(np.uint8)
        panels = side_by_side([enlarged(image) for image in (whole, seen, painted)])
        pictures.append((data_uri(panels), "input, what was seen of it, output"))
    return Pictures(
        pictures,
        f"`{encoder}` on images that it never trained on: the input, the patches that it saw, "
        "and its output with the hidden patches painted in.",
        PANEL_WIDTH,
    )


def _progress(paths: Sequence[Path]) -> Piece:
    """Show the first, the middle and the last picture of a training."""
    chosen = dict.fromkeys([paths[0], paths[len(paths) // 2], paths[-1]])
    pictures = []
    for path in chosen:
        update = int(path.stem.removeprefix("update-"))
        uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
        pictures.append((uri, f"after update {update:,}"))
    return Pictures(
        pictures,
        "Channel by channel: the input, what was seen of it, the output with seen patches "
        "filled in, and how far it is from the input. From left to right: "
        f"{', '.join(told for _, told in pictures)}.",
        PANEL_WIDTH,
    )


def side_by_side(images: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Join images in a row, clear gaps between them."""
    height = images[0].shape[0]
    clear = np.zeros((height, GAP, 4), dtype=np.uint8)
    parts = []
    for image in images:
        opaque = np.full((*image.shape[:2], 1), 255, dtype=np.uint8)
        parts += [np.concatenate([image, opaque], axis=2), clear]
    return np.concatenate(parts[:-1], axis=1)


def enlarged(image: NDArray[np.uint8], least: int = 96) -> NDArray[np.uint8]:
    """Repeat the pixels of a small image, so that it is not blurred on the screen."""
    times = max(1, least // image.shape[0])
    return image.repeat(times, axis=0).repeat(times, axis=1)
