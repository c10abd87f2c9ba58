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
        "saved by trimming": _saved(content.get("saved")),
        "licence of the weights": content["license"] or "not stated",
    }
    if not content.get("saved"):
        del rows["saved by trimming"]
    if content.get("pixels"):
        rows["pixels it was trained on"] = "; ".join(map(_known_pixels, content["pixels"]))
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    lines = ["---", *front, "---", "", "# Encoder of microscopy crops", ""]
    lines += ["| | |", "|---|---|", *table, ""]
    lines += [_USE, "", _timm_use(content), ""]
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


_STANDARDIZE = """x = images.float() / 255  # 65535 for pixels of 16 bits
variance, mean = torch.var_mean(x, dim=(2, 3), keepdim=True, correction=0)
x = (x - mean) / (variance + 1e-5).sqrt()"""
_SCALE = "x = images.float() / 255  # 65535 for pixels of 16 bits"


def _timm_use(content: Mapping[str, Any]) -> str:
    """Say how plain timm embeds a batch of crops ``images`` of shape (N, C, H, W)."""
    if content["kind"] == "pixels":
        return "It has no weights, so timm alone cannot open it."
    lines = ["import timm", "import torch", "", "# uint8 crops (N, C, H, W)"]
    lines += [_SCALE if content["normalization"] == "none" else _STANDARDIZE]
    lines += ['model = timm.create_model("local-dir:this folder", pretrained=True).eval()']
    if content["kind"] == "cnn":
        maps = "model.forward_intermediates(x)[1]"
        if content["best_block"] is not None:
            lines += ["# Of a trimmed CNN, timm gives the last stage."]
            maps = "model(x)"
        lines += [f"blocks = [stage.mean(dim=(2, 3)) for stage in {maps}]"]
        return _code("with timm alone", lines)
    if content["kind"] == "ca_mae":
        patch, crop = content["patch"], content["crop"]
        lines += [
            "# The channels stand one below the other: cut the model to as many as there are.",
            "n, channels = images.shape[:2]",
            f"model.patch_embed.set_input_size((channels * {crop}, {crop}))",
            f"length = 1 + channels * {(crop // patch) ** 2}",
            "model.pos_embed = torch.nn.Parameter(model.pos_embed[:, :length])",
            f"x = x.reshape(n, 1, channels * {crop}, {crop})",
        ]
    asked = 'intermediates_only=True, output_fmt="NLC"'
    if content["pooling"] == "class":
        lines += [
            f"found = model.forward_intermediates(x, return_prefix_tokens=True, {asked})",
            "blocks = [prefix[:, 0] for _, prefix in found]",
        ]
    else:
        lines += [
            f"found = model.forward_intermediates(x, {asked})",
            "blocks = [tokens.mean(dim=1) for tokens in found]",
        ]
    return _code("with timm alone", lines)


def _code(how: str, lines: list[str]) -> str:
    return "\n".join([f"or {how}", "", "```python", *lines, "```"])


def _patch(patch: int | None) -> str:
    return f", patches of {patch}" if patch else ""


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.4g}"


def _trim(whole: str | None, block: int | None) -> str:
    return "no" if block is None else f"block {block} of {whole}"


def _known_pixels(facts: Mapping[str, Any]) -> str:
    """Tell scaling and size of pixels.

    Examples
    --------
    >>> _known_pixels({"scaling": "percentiles", "percentiles": [0.1, 99.9]})
    'scaled from 16 to 8 bits (percentiles 0.1 to 99.9 of the controls of each plate)'
    """
    told = []
    if facts.get("scaling") == "percentiles":
        low, high = facts["percentiles"]
        how = f"percentiles {low:g} to {high:g} of the controls of each plate"
        told.append(f"scaled from 16 to 8 bits ({how})")
    if facts.get("scaling") == "range":
        pairs = (f"{name} {low} to {high}" for name, (low, high) in facts["ranges"].items())
        told.append(f"scaled from 16 to 8 bits ({', '.join(pairs)})")
    if "pixel_size_um" in facts:
        told.append(f"{facts['pixel_size_um']:g} micrometres wide")
    return ", ".join(told) or "as they are"


def _saved(saved: Mapping[str, int] | None) -> str:
    if not saved:
        return "nothing"
    parts = [
        f"{saved[key]:,} of {saved[f'whole_{key}']:,} {words}"
        f" ({saved[key] / max(saved[f'whole_{key}'], 1):.0%})"
        for key, words in (("parameters", "parameters"), ("flops_a_crop", "FLOPs a crop"))
    ]
    return ", ".join(parts)
