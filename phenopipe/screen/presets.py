"""Settings of the public layouts: which column says what, the words for controls, channels.

A screen of one of these sources has its preset; what the configuration sets goes first. The
adapters, one file a layout, say where wells and images are found.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

Source = Literal["images", "rxrx1", "rxrx3", "rxrx3_core", "jump", "ome_zarr"]
"""Where the images of a screen come from; ``images`` is the user's own table."""

Settings = dict[str, Any]

# Recursion's six stains by the number in a file's name: Hoechst, concanavalin A, phalloidin,
# SYTO 14, MitoTracker, wheat germ agglutinin. Named as JUMP names those that it has too.
_RXRX_STAINS = {
    "DNA": ["1"],
    "ER": ["2"],
    "AGP": ["3"],
    "RNA": ["4"],
    "Mito": ["5"],
    "Golgi": ["6"],
}
_RXRX: Settings = {"channels": list(_RXRX_STAINS), "channel_words": _RXRX_STAINS}

_RXRX3: Settings = {
    **_RXRX,
    "columns": {
        "plate": "plate",
        "well": "address",
        "role": "control",
        "cell_type": "cell_type",
        "layout": "layout",
        "treatments": [
            {
                "perturbation": "treatment",
                "kind": "perturbation_type",
                "gene": "gene",
                "guide": "guide",
                "concentration": "concentration",
            }
        ],
        "labels": {"SMILES": "SMILES", "well_type": "well_type_label"},
    },
    # The public recipe aligns on EMPTY_control alone; CRISPR_control, beside compounds, is
    # neither that nor a perturbation under test.
    "roles": {
        "negative_control": ["EMPTY_control"],
        "empty": ["CRISPR_control"],
        "perturbation": ["query"],
    },
    "kinds": {"knockout": ["CRISPR"], "compound": ["COMPOUND"]},
    "untreated": ["EMPTY_control", "CRISPR_control"],
    "pixel_size_um": 0.65,
}

PRESETS: dict[str, Settings] = {
    "rxrx1": {
        **_RXRX,
        "columns": {
            "plate": "plate",
            "well": "well",
            "role": "well_type",
            "cell_type": "cell_type",
            "layout": "layout",
            "treatments": [{"perturbation": "sirna", "kind": {"constant": "sirna"}}],
            "labels": {"sirna_id": "sirna_id", "dataset": "dataset"},
        },
        "roles": {"perturbation": ["treatment"]},
        "untreated": ["EMPTY"],
    },
    "rxrx3": _RXRX3,
    "rxrx3_core": _RXRX3,
    "jump": {
        "channels": ["DNA", "ER", "AGP", "RNA", "Mito"],
        "columns": {
            "plate": "Metadata_Plate",
            "well": "Metadata_Well",
            "role": "Metadata_pert_type",
            "cell_type": {"constant": "U2OS"},
            "layout": "layout",
            "treatments": [
                {"perturbation": "Metadata_JCP2022", "kind": "kind", "gene": "Metadata_Symbol"}
            ],
            "labels": {"Source": "Metadata_Source", "Batch": "Metadata_Batch"},
        },
        "roles": {
            "negative_control": ["negcon"],
            "positive_control": ["poscon"],
            "empty": ["empty", "no-guide"],
            "perturbation": ["trt"],
        },
        "kinds": {"knockout": ["CRISPR"], "overexpression": ["ORF"], "compound": ["COMPOUND"]},
        "untreated": [
            *("JCP2022_033924", "JCP2022_800001", "JCP2022_800002", "JCP2022_999999"),
        ],
        "blank_is_damaged": True,
    },
    # Plates say nothing of what was done to their wells: a table of the user's does.
    "ome_zarr": {"blank_is_damaged": True},
}


def unknown_channel(source: str, channels: Sequence[str], words: Mapping[str, Any]) -> str:
    """Tell of a channel that a layout does not have; an empty text if there is none."""
    listed = PRESETS[source].get("channel_words", {})
    unknown = [name for name in channels if listed and name not in words]
    return f"channel {unknown[0]!r} is unknown, wanted some of {[*listed]}" if unknown else ""


def with_preset(settings: Settings) -> Settings:
    """Fill in the preset of a source; channels that are left out take their words along.

    Examples
    --------
    >>> with_preset({"source": "rxrx1", "channels": ["Mito"]})["channel_words"]
    {'Mito': ['5']}
    """
    preset = PRESETS.get(str(settings.get("source")), {})
    written = {**preset, **settings}
    if "channel_words" in preset and "channel_words" not in settings:
        words = preset["channel_words"]
        known = [name for name in written["channels"] if name in words]
        written["channel_words"] = {name: words[name] for name in known}
    return written
