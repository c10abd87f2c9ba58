"""Step ``trim``: an encoder that ends with its best block."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from phenopipe.encoders.base import Encoder, EncoderConfig
from phenopipe.encoders.folder import build, load_encoder, read_config, save_encoder
from phenopipe.errors import UserError
from phenopipe.formats.tables import read_json
from phenopipe.knobs import parse_step, run_step
from phenopipe.probe.config import TrimKnobs


def trim_encoder(folder: Path, best: Path) -> Encoder:
    """Load an encoder up to the block that a probe task chose.

    Parameters
    ----------
    folder : Path
        The whole encoder.
    best : Path
        ``best_block.json`` of one of its probe tasks.

    Returns
    -------
    Encoder
        Its last block gives what block b* of the whole encoder gives; later blocks were
        neither built nor read.

    Raises
    ------
    UserError
        If the probe judged another encoder.
    """
    chosen = read_json(best)
    if chosen.get("encoder") != folder.resolve().name:
        raise UserError(
            f"{best}: best block of encoder {chosen.get('encoder')!r},"
            f" wanted {folder.resolve().name!r}"
        )
    encoder = load_encoder(folder, trim=int(chosen["block"]))
    encoder.config = replace(encoder.config, saved=savings(read_config(folder), encoder.config))
    return encoder


def savings(whole: EncoderConfig, cut: EncoderConfig) -> dict[str, int]:
    """Parameters and operations of a crop that a cut saves, and what it saves them of."""
    parameters, flops = cost_of(whole)
    less_parameters, less_flops = cost_of(cut)
    return {
        "parameters": parameters - less_parameters,
        "whole_parameters": parameters,
        "flops_a_crop": flops - less_flops,
        "whole_flops_a_crop": flops,
    }


def cost_of(config: EncoderConfig) -> tuple[int, int]:
    """Parameters of an encoder, and floating point operations of one crop's forward pass.

    Notes
    -----
    Products only (a multiplication and an addition are two operations), counted on a model
    without storage.
    """
    with torch.device("meta"):
        encoder = build(config).eval()
        crop_NCHW = torch.empty(1, len(config.channels), config.crop, config.crop)
        with FlopCounterMode(display=False) as counter:
            encoder.forward_blocks(crop_NCHW)
    return sum(p.numel() for p in encoder.model.parameters()), counter.get_total_flops()


def main(argv: Sequence[str] | None = None) -> None:
    """Run from the rule ``probe_trim``."""
    files, _ = parse_step(
        TrimKnobs,
        inputs=["model", "config", "best"],
        outputs=["trimmed_model", "trimmed_config", "card"],
        names=["encoder"],
        doc=__doc__,
        argv=argv,
    )
    encoder = trim_encoder(files.model.parent, files.best)
    save_encoder(files.trimmed_model.parent, encoder, files.stamp)
    saved = encoder.config.saved or {}
    kept = ", ".join(
        f"{saved[f'whole_{key}'] - saved[key]:,} {key}"
        for key in ("parameters", "flops_a_crop")
    )
    print(f"{files.encoder}: block {encoder.config.best_block}, {kept}")


if __name__ == "__main__":
    run_step(main)
