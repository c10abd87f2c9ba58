"""What an autoencoder paints on images that it never trained on."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from phenopipe.encoders.mae import MaskedAutoencoder, unpatchify
from phenopipe.encoders.standardize import self_standardize
from phenopipe.errors import UserError
from phenopipe.formats.atomic import atomic
from phenopipe.pretrain.sites import Sites
from phenopipe.seeds import generator, hash_uniform

Arrays = dict[str, NDArray[np.generic]]
# Images whose pixels are kept for the report; the error is that of all held-out ones.
IMAGES_KEPT = 8
# With too few images for a test set of the wanted size, this share of them makes it.
LARGEST_SHARE = 0.1


def hold_out(sites: Sites, wanted: int, seed: int) -> NDArray[np.bool_]:
    """Choose the sites that are not trained on; added sites change no earlier choice."""
    if len(sites) < 2:
        raise UserError(f"found {len(sites)} image, wanted one to train on and one held out")
    n_held = min(wanted, max(1, int(LARGEST_SHARE * len(sites))))
    rank = hash_uniform(seed, sites.table["image_id"]).argsort(kind="stable").argsort()
    chosen: NDArray[np.bool_] = rank < n_held
    return chosen


@torch.no_grad()
def reconstruct(model: MaskedAutoencoder, sites: Sites, crop: int, seed: int) -> Arrays:
    """Paint the hidden patches of the middle of every site.

    Parameters
    ----------
    model : MaskedAutoencoder
        In evaluation mode.
    sites : Sites
        Held-out sites.
    crop : int
        Side of the crops, pixels.
    seed : int
        Of the masks.

    Returns
    -------
    dict of arrays
        ``l2`` (n_sites,): masked error of each site, 1.0 if the model only knew the mean.
        For the first few sites ``input`` and ``output`` (n, channels, crop, crop), float32
        standardized pixels; ``mask`` (n, channels, crop, crop), 1 where a pixel was hidden;
        ``image_id``. ``channels``: their names.
    """
    device = next(model.parameters()).device
    found: dict[str, list[NDArray[np.generic]]] = {
        "l2": [],
        "input": [],
        "output": [],
        "mask": [],
    }
    n_channels = len(sites.channels)
    for number, image_id in enumerate(sites.table["image_id"]):
        pixels = sites.pixels(number)
        top, left = ((side - crop) // 2 for side in pixels.shape[1:])
        cut = np.ascontiguousarray(pixels[None, :, top : top + crop, left : left + crop])
        image = self_standardize(torch.from_numpy(cut).to(device))
        target = model.targets(image)
        rng = generator(seed, "held_out", image_id)
        noise = torch.from_numpy(rng.random((1, target.shape[1]), np.float32)).to(device)
        out = model(torch.from_numpy(cut).to(device), noise)
        found["l2"].append(out.l2.cpu().numpy())
        if number < IMAGES_KEPT:
            hidden = out.mask[..., None].expand_as(target)
            found["input"].append(image[0].cpu().numpy())
            found["output"].append(_as_image(out.prediction, model, n_channels))
            found["mask"].append(_as_image(hidden, model, n_channels).astype(np.uint8))
    arrays: Arrays = {name: np.stack(parts) for name, parts in found.items()}
    arrays["image_id"] = sites.table["image_id"].to_numpy()[:IMAGES_KEPT].astype(str)
    arrays["channels"] = np.array(sites.channels)
    return arrays


def _as_image(
    patches: torch.Tensor, model: MaskedAutoencoder, channels: int
) -> NDArray[np.float32]:
    """Join patches (1, L, T) to an image; one grid a channel for the channel-agnostic model."""
    grids = patches.reshape(-1, model.grid, patches.shape[2])
    image = unpatchify(grids.float(), model.token_channels).cpu().numpy()
    joined: NDArray[np.float32] = image.reshape(channels, *image.shape[2:])
    return joined


def write_reconstructions(path: Path, arrays: Arrays) -> None:
    """Write arrays as npz; equal arrays give equal bytes."""
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
