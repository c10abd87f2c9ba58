"""Which arithmetic attention uses: a choice of speed, made before a model is built."""

import timm.layers
import torch

# Below about this many tokens three plain products beat the fused kernel on processors:
# its backward pass is slow there. On GPUs the fused one always wins.
FUSED_FROM_TOKENS = 700


def choose_attention(n_tokens: int) -> None:
    """Let timm's models that are built from here on use plain or fused attention.

    Parameters
    ----------
    n_tokens : int
        Longest sequence of tokens.
    """
    fused = torch.cuda.is_available() or n_tokens >= FUSED_FROM_TOKENS
    timm.layers.set_fused_attn(fused)
