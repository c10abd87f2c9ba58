"""Step ``trim``: an encoder that ends with its best block."""

from collections.abc import Sequence
from pathlib import Path

from phenopipe.encoders.base import Encoder
from phenopipe.encoders.folder import load_encoder, save_encoder
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
    return load_encoder(folder, trim=int(chosen["block"]))


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
    parameters = sum(p.numel() for p in encoder.model.parameters())
    print(f"{files.encoder}: block {encoder.config.best_block}, {parameters:,} parameters")


if __name__ == "__main__":
    run_step(main)
