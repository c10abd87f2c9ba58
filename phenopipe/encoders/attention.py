"""Which arithmetic attention uses: a choice of speed, made before a model is built."""

import timm.layers
import torch

# Below about this many tokens three plain products beat the fused kernel's slow backward
# pass on processors in bfloat16; in float32 and on GPUs the fused one wins.
FUSED_FROM_TOKENS = 700


def choose_attention(n_tokens: int, *, bfloat16: bool) -> None:
    """Let timm's models that are built from here on use plain or fused attention.

    Parameters
    ----------
    n_tokens : int
        Longest sequence of tokens.
    bfloat16 : bool
        Whether the model computes in bfloat16.
    """
    plain = bfloat16 and n_tokens < FUSED_FROM_TOKENS and not torch.cuda.is_available()
    timm.layers.set_fused_attn(not plain)
