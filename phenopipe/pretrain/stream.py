"""The stream of training crops: sample, crop, flip and noise as functions of their place.

The stream runs through the images epoch by epoch, each in an order of its own. Place
``p`` of the stream is image number ``p mod n`` of epoch ``p // n``; update ``u`` takes the
places ``u * batch`` to ``(u + 1) * batch - 1``, of which each process takes a share.
Nothing else is remembered, so a training that continues after a kill, or on another number
of machines, sees the same crops.
"""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from phenopipe.pretrain.sites import Pixels, Sites
from phenopipe.seeds import generator
from phenopipe.threads import ahead

Batch = tuple[Tensor, ...]
# What a model needs beside the crop: masking noise, or a label.
Extras = Callable[[np.random.Generator, int], tuple[NDArray[Any], ...]]
BATCHES_AHEAD = 4


def random_crop(
    pixels_CHW: Pixels, crop: int, rng: np.random.Generator, *, flips: bool
) -> Pixels:
    """Cut a random square from an image, and flip it at random along either axis."""
    _, height, width = pixels_CHW.shape
    top, left = rng.integers((height - crop + 1, width - crop + 1))
    cut = pixels_CHW[:, top : top + crop, left : left + crop]
    up, over = rng.random(2) < 0.5 if flips else (False, False)
    return cut[:, :: -1 if up else 1, :: -1 if over else 1]


class CropStream:
    """Batches of random crops by number.

    Parameters
    ----------
    sites : Sites
        Where crops come from.
    crop, batch : int
        Side of a crop in pixels, crops a batch.
    seed : int
        Together with epoch and place it fixes every draw.
    flips : bool
        Whether crops are flipped.
    extras : callable
        Given the crop's generator and its site, returns further arrays for the model.
    """

    def __init__(
        self, sites: Sites, *, crop: int, batch: int, seed: int, flips: bool, extras: Extras
    ) -> None:
        self.sites = sites
        self.crop = crop
        self.batch_size = batch
        self.seed = seed
        self.flips = flips
        self.extras = extras
        self._orders: dict[int, NDArray[np.int64]] = {}
        self.share(0, batch)

    def share(self, number: int, crops: int) -> None:
        """Take only share ``number`` of every batch, of as many crops."""
        self.places = range(number * crops, (number + 1) * crops)

    def site(self, epoch: int, place: int) -> int:
        """Return the site that stands at a place of an epoch."""
        if epoch not in self._orders:
            order = generator(self.seed, "order", epoch).permutation(len(self.sites))
            # A batch touches two epochs at most; one more is kept for batches made ahead.
            self._orders = {**dict(list(self._orders.items())[-2:]), epoch: order}
        return int(self._orders[epoch][place])

    def sample(self, position: int) -> tuple[NDArray[Any], ...]:
        """Return the crop at a position of the stream, and what belongs to it."""
        epoch, place = divmod(position, len(self.sites))
        rng = generator(self.seed, "crop", epoch, place)
        site = self.site(epoch, place)
        return self.draw(self.sites.pixels(site), rng, site)

    def draw(
        self, pixels: Pixels, rng: np.random.Generator, site: int
    ) -> tuple[NDArray[Any], ...]:
        """Return a crop of a site, and what belongs to it."""
        return random_crop(pixels, self.crop, rng, flips=self.flips), *self.extras(rng, site)

    def batch(self, update: int) -> Batch:
        """Return this process's share of the batch of one update (counted from 0)."""
        first = update * self.batch_size
        samples = [self.sample(first + at) for at in self.places]
        return tuple(torch.from_numpy(np.stack(part)) for part in zip(*samples, strict=True))

    def batches(self, first: int, last: int) -> Generator[Batch]:
        """Yield batches ``first`` to ``last - 1``, prepared in the background."""
        threads = 1 if self.sites.in_memory else BATCHES_AHEAD
        yield from ahead(self.batch, range(first, last), threads, BATCHES_AHEAD // threads)
