"""The model card that lies in every encoder folder."""

from collections.abc import Mapping
from typing import Any


def model_card(content: Mapping[str, Any]) -> str:
    """Write the card of an encoder from the content of its ``config.json``."""
    front = ["library_name: timm", "tags:", "- image-feature-extraction", "- microscopy"]
    if content["license"]:
        front.append(f"license: {content['license']}")
    blocks = f"{content['depth']} blocks of width {content['dim']}"
    rows = {
        "architecture": f"{content['architecture']} ({content['kind']})",
        "size": f"{blocks}, {content['parameters']:,} parameters",
        "channels, in order": ", ".join(content["channels"]),
        "crop": f"{content['crop']} pixels" + _patch(content["patch"]),
        "pixels": _PIXELS[content["normalization"]],
        "embedding of a crop": _POOLING[content["pooling"]],
        "trained on": content["trained_on"] or "nothing in this workflow",
        "crops seen in training": _number(content["crops_seen"]),
        "operations of training (FLOPs)": _number(content["training_flops"]),
        "trimmed": _trim(content["trimmed_from"], content["best_block"]),
        "licence of the weights": content["license"] or "not stated",
    }
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    lines = ["---", *front, "---", "", "# Encoder of microscopy crops", ""]
    lines += ["| | |", "|---|---|", *table, ""]
    lines += [_USE, ""]
    return "\n".join(lines)


_PIXELS = {
    "self_standardize": "every channel of every crop to mean 0 and variance 1",
    "none": "scaled to 0..1",
}
_POOLING = {
    "mean": "mean of patch tokens (or of the map) after each block, no final norm",
    "class": "class token after each block, no final norm",
}
_USE = """Embed crops at every block with

```python
from phenopipe.encoders.folder import load_encoder

blocks = load_encoder("this folder").forward_blocks(images)  # (crops, blocks, width)
```"""


def _patch(patch: int | None) -> str:
    return f", patches of {patch}" if patch else ""


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"


def _trim(whole: str | None, block: int | None) -> str:
    return "no" if block is None else f"block {block} of {whole}"
