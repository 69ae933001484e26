"""What every bottleneck and every quantiser returns."""

from dataclasses import dataclass, field

import torch


@dataclass
class BottleneckOutput:
    """The one return value of all bottlenecks.

    Arguments
    ---------
    latent : torch.Tensor
        What the decoder sees: a sample, a quantised vector, a noise-substituted
        vector. Shape [B, T, D], zero on padding.
    features : torch.Tensor
        What downstream tasks see: the posterior mean, the quantised or
        curve-projected vector. Deterministic, shape [B, T, D], zero on padding.
    indices : torch.Tensor or None
        Code indices, long, shape [B, T, G], -1 on padding; ``None`` for
        continuous bottlenecks.
    loss : torch.Tensor
        The bottleneck's own term (KL, commitment, ...), a scalar, averaged over
        the valid latent frames and already weighted.
    stats : dict
        Detached tensors for the log.
    """

    latent: torch.Tensor
    features: torch.Tensor
    indices: torch.Tensor | None
    loss: torch.Tensor
    stats: dict[str, torch.Tensor] = field(default_factory=dict)
