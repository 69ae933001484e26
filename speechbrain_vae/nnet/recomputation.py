"""Activation checkpointing: blocks that compute twice instead of remembering."""

from functools import partial

import torch
from torch.utils.checkpoint import checkpoint

from speechbrain_vae.nnet.blocks import ConvBlock
from speechbrain_vae.nnet.normalisation import MaskedBatchNorm

_BATCH_NORM = torch.nn.modules.batchnorm._BatchNorm
BLOCKS = (ConvBlock, torch.nn.GRU, torch.nn.LSTM)


def recompute_activations(module):
    """Let every block keep its input alone, and compute the rest again for gradients.

    Gradients stay the same; the activations of a training step take half the memory or
    less, and the step a quarter to a third more time (Chen et al. 2016, "Training deep
    nets with sublinear memory cost").

    Arguments
    ---------
    module : torch.nn.Module
        An autoencoder, or any part of one; changed in place.

    Raises
    ------
    ValueError
        A block has batch normalisation, whose running statistics would count every
        batch twice.

    Example
    -------
    >>> block = ConvBlock(16)
    >>> recompute_activations(block)
    >>> block(torch.randn(2, 16, 10), torch.ones(2, 1, 10)).shape
    torch.Size([2, 16, 10])
    """
    blocks = [part for part in module.modules() if isinstance(part, BLOCKS)]
    inside = (part for block in blocks for part in block.modules())
    if any(isinstance(part, (MaskedBatchNorm, _BATCH_NORM)) for part in inside):
        raise ValueError(
            "activation_checkpointing runs each block twice, which batch normalisation "
            "would count as two batches; set activation_checkpointing: False, or "
            "another normalisation"
        )
    for block in blocks:
        block.forward = partial(_recomputed, block.forward)


def _recomputed(forward, x, *others):
    if not torch.is_grad_enabled():
        return forward(x, *others)
    return checkpoint(forward, x, *others, use_reentrant=False)
