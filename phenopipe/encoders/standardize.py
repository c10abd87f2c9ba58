"""Self-standardization: what every encoder does first to the pixels of a crop."""

import torch
from torch import Tensor
from torch.nn import functional

# Full scale of an integer pixel. Dividing first matters: the 1e-5 below is added to the
# variance on the scale 0..1, so dim channels are damped instead of amplified.
FULL_SCALE = {torch.uint8: 255.0, torch.uint16: 65535.0}
EPSILON = 1e-5


def self_standardize(images_NCHW: Tensor) -> Tensor:
    """Scale every channel of every crop to mean 0 and variance 1.

    Parameters
    ----------
    images_NCHW : tensor of shape (n_crops, n_channels, height, width)
        uint8 and uint16 pixels are first divided by their full scale; floats are taken to
        lie on the scale 0..1 already.

    Returns
    -------
    tensor
        float32, of the same shape. A constant channel becomes 0.

    Notes
    -----
    (x - mean) / sqrt(biased variance + 1e-5), by image and channel, in training and in
    use alike: paper 3.2 (instance normalization without running statistics).
    """
    scale = FULL_SCALE.get(images_NCHW.dtype, 1.0)
    return functional.instance_norm(images_NCHW.float().div(scale), eps=EPSILON)
