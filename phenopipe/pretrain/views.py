"""Views of an image: large and small crops of one place, changed as a microscope might.

Where they lie, how they are turned, which patches are hidden, and every number that
intensities and sharpness change by is drawn here for each image, by the generator of its
place in the stream; the change itself happens on the device that trains.

Shape suffixes
    N images or crops, V crops of an image (G large ones, S small ones), C channels, H W pixels,
    L patches of a large crop, B blocks
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phenopipe.encoders.standardize import FULL_SCALE, self_standardize
from phenopipe.pretrain.config import DinoKnobs
from phenopipe.pretrain.sites import Pixels
from phenopipe.pretrain.stream import CropStream, random_crop

# Width over height of a block of hidden patches, at most (BEiT, Bao et al. 2022).
LARGEST_ASPECT = 1.0 / 0.3
# Blocks of hidden patches that are tried before single patches make up the number.
TRIES = 10
# Fewest patches of a block while more are to be hidden.
SMALLEST_BLOCK = 4


class Views(NamedTuple):
    """Views of N images, tensors; of one image, arrays without the first axis.

    large, small : (N, G, C, H, W) and (N, S, C, h, w), pixels as stored.
    gain, offset : (N, V, C), for standardized pixels.
    sigma : (N, V), of the blur, pixels; 0: none.
    mask : (N, G, L), true where a patch is hidden.
    drop : (N, V, B), uniform noise that decides which blocks a crop skips.
    """

    large: Any
    small: Any
    gain: Any
    offset: Any
    sigma: Any
    mask: Any
    drop: Any


def draw_views(pixels_CHW: Pixels, knobs: DinoKnobs, rng: np.random.Generator) -> Views:
    """Draw the views of one image.

    Notes
    -----
    Crops are never magnified: how large a cell is belongs to its phenotype. All crops lie in
    one square, 1.5 times as wide as a large crop by default, so that two large ones share a
    quarter of their area at least.
    """
    _, height, width = pixels_CHW.shape
    region = min(height, width, math.ceil(knobs.region * knobs.crop))
    top, left = rng.integers((height - region + 1, width - region + 1))
    square = pixels_CHW[:, top : top + region, left : left + region]
    large = [_view(square, knobs.crop, knobs, rng) for _ in range(knobs.large_crops)]
    small = [_view(square, knobs.small_crop, knobs, rng) for _ in range(knobs.small_crops)]
    n_views, n_channels = len(large) + len(small), len(pixels_CHW)
    change_2VC = rng.uniform(-1.0, 1.0, (2, n_views, n_channels)).astype(np.float32)
    blurred_V = rng.random(n_views) < knobs.blur
    sigma_V = rng.uniform(*knobs.blur_sigma, n_views) * blurred_V
    side = knobs.crop // knobs.patch
    shape = (0, n_channels, knobs.small_crop, knobs.small_crop)
    return Views(
        np.stack(large),
        np.stack(small) if small else np.empty(shape, pixels_CHW.dtype),
        1.0 + knobs.gain * change_2VC[0],
        knobs.offset * change_2VC[1],
        sigma_V.astype(np.float32),
        np.stack([_mask(side, knobs, rng) for _ in large]),
        rng.random((n_views, knobs.depth), np.float32),
    )


def _view(square: Pixels, crop: int, knobs: DinoKnobs, rng: np.random.Generator) -> Pixels:
    cut = random_crop(square, crop, rng, flips=knobs.flips)
    return np.rot90(cut, int(rng.integers(4)), axes=(1, 2)) if knobs.rotations else cut


def _mask(side: int, knobs: DinoKnobs, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Choose the patches of a large crop that the student does not see."""
    share = rng.uniform(*knobs.mask_ratio)
    if rng.random() >= knobs.masked:
        share = 0.0
    return block_mask(side, round(share * side * side), rng).reshape(-1)


def block_mask(side: int, wanted: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Hide a number of patches of a square grid, most of them in rectangles.

    Returns
    -------
    bool array of shape (side, side)
        True at exactly ``wanted`` patches.

    Notes
    -----
    BEiT (Bao et al. 2022), Algorithm 1, which iBOT and DINOv2 use: rectangles of random area
    and aspect until enough is hidden. Theirs may hide a few more; here none, and single
    patches make up what rectangles leave open.
    """
    mask = np.zeros((side, side), dtype=bool)
    for _ in range(TRIES):
        left = wanted - int(mask.sum())
        if left < SMALLEST_BLOCK:
            break
        area = rng.uniform(SMALLEST_BLOCK, left)
        aspect = math.exp(rng.uniform(-1.0, 1.0) * math.log(LARGEST_ASPECT))
        height = min(side, max(1, round(math.sqrt(area * aspect))))
        width = min(side, max(1, round(math.sqrt(area / aspect))))
        top, first = rng.integers((side - height + 1, side - width + 1))
        block = np.zeros_like(mask)
        block[top : top + height, first : first + width] = True
        if (block & ~mask).sum() <= left:
            mask |= block
    free = np.flatnonzero(~mask)
    mask.reshape(-1)[rng.choice(free, wanted - int(mask.sum()), replace=False)] = True
    return mask


class ViewStream(CropStream):
    """Batches of views by number: their order is that of any training's crops."""

    def __init__(self, sites: Any, knobs: DinoKnobs) -> None:  # noqa: ANN401
        super().__init__(
            sites,
            crop=knobs.crop,
            batch=knobs.batch,
            seed=knobs.seed,
            flips=knobs.flips,
            extras=lambda rng, site: (),
        )
        self.knobs = knobs

    def draw(self, pixels: Pixels, rng: np.random.Generator, site: int) -> tuple[Any, ...]:
        """Return the views of a site."""
        return tuple(draw_views(pixels, self.knobs, rng))


# --- on the device ---------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """Views as the networks see them: crops in rows, image by image.

    large_NCHW, small_NCHW : standardized and changed pixels, G and S rows an image.
    mask_NL, drop_large_NB, drop_small_NB : for the rows.
    weight_M : of hidden patches, see :func:`~phenopipe.pretrain.dino_losses.ibot_loss`.
    """

    large_NCHW: Tensor
    small_NCHW: Tensor
    mask_NL: Tensor
    drop_large_NB: Tensor
    drop_small_NB: Tensor
    weight_M: Tensor


def prepare(views: Views) -> Prepared:
    """Standardize and change the crops of some images."""
    n_large = views.large.shape[1]

    def changed(crops: Tensor, part: slice) -> Tensor:
        return change(
            crops.flatten(0, 1),
            views.gain[:, part].flatten(0, 1),
            views.offset[:, part].flatten(0, 1),
            views.sigma[:, part].flatten(),
        )

    first, rest = slice(None, n_large), slice(n_large, None)
    mask_NL = views.mask.flatten(0, 1)
    hidden_N = mask_NL.sum(dim=1)
    weight_NL = mask_NL / (hidden_N.clamp_min(1) * len(mask_NL))[:, None]
    return Prepared(
        changed(views.large, first),
        changed(views.small, rest),
        mask_NL,
        views.drop[:, first].flatten(0, 1),
        views.drop[:, rest].flatten(0, 1),
        weight_NL[mask_NL],
    )


def change(images_NCHW: Tensor, gain_NC: Tensor, offset_NC: Tensor, sigma_N: Tensor) -> Tensor:
    """Blur crops, standardize them, then change the intensity of each channel.

    Parameters
    ----------
    images_NCHW : tensor
        Raw crops.
    gain_NC, offset_NC : tensors
        Factor and addend of each channel of each crop, in units of its standard deviation:
        before standardization they would change nothing.
    sigma_N : tensor
        Standard deviation of the blur, pixels; 0: none.
    """
    scale = FULL_SCALE.get(images_NCHW.dtype, 1.0)
    x_NCHW = self_standardize(blur(images_NCHW.float() / scale, sigma_N))
    return x_NCHW * gain_NC[..., None, None] + offset_NC[..., None, None]


def blur(images_NCHW: Tensor, sigma_N: Tensor) -> Tensor:
    """Blur each crop by a Gaussian of its own width, all channels alike.

    Notes
    -----
    Rows and columns are multiplied with matrices of Gaussian weights that add up to 1, so
    that pixels beyond the edge do not count.
    """
    if not len(images_NCHW) or not sigma_N.any():
        return images_NCHW
    rows, columns = (_weights(side, sigma_N) for side in images_NCHW.shape[2:])
    return rows[:, None] @ images_NCHW @ columns[:, None].mT


def _weights(side: int, sigma_N: Tensor) -> Tensor:
    place = torch.arange(side, device=sigma_N.device, dtype=torch.float32)
    distance = place[:, None] - place
    # A width next to none leaves each pixel alone.
    width_N = sigma_N.clamp_min(1e-3)[:, None, None]
    weights = torch.exp(-0.5 * (distance / width_N).square())
    return weights / weights.sum(dim=2, keepdim=True)
