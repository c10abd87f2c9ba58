"""Fetch the weights of a model that timm names from the hub: an explicit step, never a rule.

Run it where there is a network; nothing else in this workflow downloads. The file's checksum
is compared with the one given, or else with the one that the hub announces, and printed for
the encoder's entry (``sha256``). Models are named as in timm with a tag, for example
``vit_large_patch16_224.mae``, or by a preset of ``embed.prepare``, for example DINOv2-S/14.

    python -m phenopipe.embed.fetch DINOv2-S/14 --folder data/weights
"""

import argparse
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import huggingface_hub as hub
from timm.models import get_pretrained_cfg

from phenopipe.embed.presets import PRESETS
from phenopipe.embed.weights import WEIGHT_NAMES, check_sha256, read_weights, sha256_of
from phenopipe.errors import UserError, reason
from phenopipe.formats.atomic import atomic
from phenopipe.knobs import run_step


class Source(NamedTuple):
    """Where the weights of one model lie."""

    name: str
    repository: str
    file: str


def find_source(model: str) -> Source:
    """Find the repository of a model's weights in timm's registry.

    Raises
    ------
    UserError
        If the model has no tag, or timm knows no weights of it in the hub.
    """
    name = PRESETS.get(model, {}).get("architecture", model)
    known = get_pretrained_cfg(name) if "." in name else None
    if known is None or not known.hf_hub_id:
        raise UserError(f"{name}: timm knows no weights of this name, wanted NAME.TAG")
    return Source(name, known.hf_hub_id, known.hf_hub_filename or WEIGHT_NAMES[0])


def fetch_weights(
    model: str, folder: Path, *, sha256: str | None = None, endpoint: str | None = None
) -> Path:
    """Download weights and check them; the file appears whole and right, or not at all.

    Parameters
    ----------
    model : str
        timm's name with a tag, or a preset.
    folder : Path
        Where the file goes, as ``NAME.TAG.safetensors``.
    sha256 : str
        Checksum that it must have; the one that the hub announces if left out.
    endpoint : str
        Address of another hub, such as a mirror.

    Raises
    ------
    UserError
        If there is no network, no such file, or the checksum differs.
    """
    source = find_source(model)
    path = folder / f"{source.name}.safetensors"
    again = f"python -m phenopipe.embed.fetch {source.name} --folder {folder}"
    try:
        url = hub.hf_hub_url(source.repository, source.file, endpoint=endpoint)
        announced = (hub.get_hf_file_metadata(url, endpoint=endpoint).etag or "").strip('"')
        wanted = sha256 or announced
        if not re.fullmatch("[0-9a-f]{64}", wanted):
            raise UserError(f"{url}: the hub announces no checksum, wanted --sha256")
        with tempfile.TemporaryDirectory() as place, atomic(path) as temporary:
            found = Path(
                hub.hf_hub_download(
                    source.repository, source.file, local_dir=place, endpoint=endpoint
                )
            )
            check_sha256(found, wanted)
            read_weights(found)
            temporary.write_bytes(found.read_bytes())
    except UserError:
        raise
    except Exception as error:  # the hub's client and what it stands on raise many kinds
        raise UserError(
            f"{source.repository}: not fetched ({type(error).__name__}: {reason(error)}); "
            f"where there is a network: {again}"
        ) from None
    return path


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch the models of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("model", nargs="+", help="NAME.TAG of timm, or a preset")
    parser.add_argument("--folder", type=Path, default=Path("weights"), help="(weights)")
    parser.add_argument("--sha256", help="checksum that the one model's file must have")
    parser.add_argument("--endpoint", metavar="URL", help="another hub, such as a mirror")
    given = parser.parse_args(argv)
    if given.sha256 and len(given.model) > 1:
        raise UserError("--sha256 is for one model, found several")
    for model in given.model:
        path = fetch_weights(model, given.folder, sha256=given.sha256, endpoint=given.endpoint)
        print(f"{path}\n  sha256: {sha256_of(path)}", flush=True)


if __name__ == "__main__":
    run_step(main)
