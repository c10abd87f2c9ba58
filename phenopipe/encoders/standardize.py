"""Self-standardization: what every encoder does first to the pixels of a crop."""

import torch
from torch import Tensor

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

    Pixels keep their own units, in which 1e-5 is multiplied with the full scale squared. The
    variance is that of centred pixels, row by row, less the square of what rounding left of
    their mean: short sums of small numbers, so that float32 is enough.
    """
    scale = FULL_SCALE.get(images_NCHW.dtype, 1.0)
    x_NCHW = images_NCHW.to(torch.float32, copy=True)
    x_NCHW -= x_NCHW.mean(dim=(2, 3), keepdim=True)
    left_NC11 = x_NCHW.mean(dim=(2, 3), keepdim=True)
    rows_NCH1 = torch.linalg.vector_norm(x_NCHW, dim=3, keepdim=True)
    square_NC11 = rows_NCH1.square().mean(dim=2, keepdim=True) / x_NCHW.shape[3]
    factor_NC11 = (square_NC11 - left_NC11.square() + EPSILON * scale**2).rsqrt()
    return torch.addcmul(-left_NC11 * factor_NC11, x_NCHW, factor_NC11, out=x_NCHW)
