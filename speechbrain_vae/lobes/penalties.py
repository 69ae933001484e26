"""Penalties of an autoencoder: terms of the training loss beside the likelihood.

A penalty is called as ``penalty(autoencoder, inputs, lengths, code)`` and returns a
scalar, already weighted, that padding does not change. ``inputs`` [B, T, F] is what
the encoder heard, a leaf of the graph that ``code`` (a
:class:`~speechbrain_vae.nnet.bottleneck_output.BottleneckOutput`) was computed in.
"""

import torch

from speechbrain_vae.nnet.convolution import FramesConvolution
from speechbrain_vae.nnet.distributed import mean_over_frames
from speechbrain_vae.nnet.lengths import length_mask


class SparsityPenalty(torch.nn.Module):
    """Absolute values of the latent: ``weight * sum_d |z_d|`` per input frame.

    Makes few units of an overcomplete code speak at a time. A decoder can undo the
    penalty by large weights that read small latents; a :class:`WeightPenalty` beside
    it closes that way out.

    Arguments
    ---------
    weight : float
        In nats per unit of activation.

    Example
    -------
    >>> from speechbrain_vae.nnet.bottleneck_output import BottleneckOutput
    >>> latent = torch.ones(2, 5, 8)
    >>> code = BottleneckOutput(latent, latent, None, torch.zeros(()))
    >>> float(SparsityPenalty(0.5)(None, torch.randn(2, 10, 80), None, code))
    2.0
    """

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = check_positive("weight", weight)

    def forward(self, autoencoder, inputs, lengths: torch.Tensor | None, code):
        """Scalar; ``code.features`` is zero on padding."""
        frames = length_mask(inputs, lengths).sum().clamp(min=1)
        return self.weight * code.features.abs().sum() / frames


class ActivityPenalty(torch.nn.Module):
    """Divergence of each unit's mean activity from a target (Ng 2011, section 3).

    ``weight * sum_d KL(target || mean_d)`` between Bernoulli variables, with
    ``mean_d`` the mean of unit d over the valid latent frames of the batch (of all DDP
    processes). Needs units between 0 and 1: a bottleneck with
    ``activation: !name:torch.nn.Sigmoid``.

    Arguments
    ---------
    weight : float
        Weight of the divergence, which is in nats.
    target : float
        Mean activity, between 0 and 1.

    Example
    -------
    >>> from speechbrain_vae.lobes.autoencoder import Autoencoder
    >>> from speechbrain_vae.lobes.bottlenecks import DeterministicBottleneck
    >>> from speechbrain_vae.lobes.decoders import ConvDecoder
    >>> from speechbrain_vae.lobes.encoders import ConvEncoder
    >>> from speechbrain_vae.nnet.likelihoods import GaussianLikelihood
    >>> autoencoder = Autoencoder(
    ...     ConvEncoder(80, channels=32),
    ...     DeterministicBottleneck(32, 256, activation=torch.nn.Sigmoid),
    ...     ConvDecoder(256, 80, channels=32),
    ...     GaussianLikelihood(80),
    ...     penalties=[ActivityPenalty(0.1, target=0.05)],
    ... )
    >>> float(autoencoder(torch.randn(2, 10, 80)).penalties["ActivityPenalty"]) > 0
    True
    """

    def __init__(self, weight: float, target: float = 0.05) -> None:
        super().__init__()
        self.weight = check_positive("weight", weight)
        if not 0 < target < 1:
            raise ValueError(f"target must be between 0 and 1; got {target}")
        self.target = target

    def forward(self, autoencoder, inputs, lengths: torch.Tensor | None, code):
        """Scalar in nats; raises ValueError for units outside [0, 1]."""
        units = code.features.float()
        if units.numel() and not 0 <= units.min() <= units.max() <= 1:
            raise ValueError(
                "ActivityPenalty needs latents between 0 and 1; give the bottleneck "
                "activation: !name:torch.nn.Sigmoid, or use SparsityPenalty"
            )
        code_lengths = autoencoder.encoder.output_lengths(inputs, lengths)
        frames = length_mask(units, code_lengths).sum()
        mean = mean_over_frames(units.sum((0, 1)), frames, autoencoder.training)
        mean = mean.clamp(1e-6, 1 - 1e-6)
        target = torch.as_tensor(self.target, device=mean.device)
        on = target * (target / mean).log()
        off = (1 - target) * ((1 - target) / (1 - mean)).log()
        return self.weight * (on + off).sum()


class ContractivePenalty(torch.nn.Module):
    """Squared Frobenius norm of the encoder's Jacobian (Rifai et al. 2011, eq. 1).

    ``weight * ||d features / d inputs||^2`` over whole utterances, per input frame.
    The norm is the trace of J J', estimated without bias by ``||J' v||^2`` with
    random signs v (Hutchinson 1990): one more backward pass a probe, whatever the
    size of the latent.

    Arguments
    ---------
    weight : float
        Weight of the squared norm.
    probes : int
        Random vectors to average over.

    Example
    -------
    >>> from speechbrain_vae.lobes.bottlenecks import DeterministicBottleneck
    >>> inputs = torch.randn(2, 10, 80, requires_grad=True)
    >>> code = DeterministicBottleneck(80, 1)(inputs)
    >>> penalty = ContractivePenalty(0.1)(None, inputs, None, code)
    >>> penalty.shape, penalty.requires_grad
    (torch.Size([]), True)
    """

    second_derivatives = True
    """Whether the gradient of the penalty is one of a gradient."""

    def __init__(self, weight: float, probes: int = 1) -> None:
        super().__init__()
        self.weight = check_positive("weight", weight)
        if probes < 1:
            raise ValueError(f"probes must be at least 1; got {probes}")
        self.probes = probes

    def forward(self, autoencoder, inputs, lengths: torch.Tensor | None, code):
        """Scalar; raises ValueError for a latent that has no derivative."""
        if code.indices is not None or not code.features.requires_grad:
            raise ValueError(
                "ContractivePenalty needs a latent that is differentiable in the "
                "input; use it with a continuous bottleneck, in training"
            )
        # Features on padding are zero whatever the input, so their probes add nothing.
        total = torch.zeros((), device=inputs.device)
        for _ in range(self.probes):
            signs = 2.0 * torch.randint_like(code.features, 2) - 1
            (slope,) = torch.autograd.grad(
                code.features, inputs, signs, create_graph=True
            )
            total = total + (slope.float() ** 2).sum()
        frames = length_mask(inputs, lengths).sum().clamp(min=1)
        return self.weight * total / (self.probes * frames)


class WeightPenalty(torch.nn.Module):
    """``l1 * sum |w| + l2 * sum w^2`` over the weights of all layers.

    The weights of linear, convolutional and recurrent layers count, shared ones
    once; biases, normalisations, codebooks and likelihoods do not.

    Arguments
    ---------
    l1, l2 : float
        Weights of the two norms; at least one is positive.

    Example
    -------
    >>> layer = torch.nn.Linear(2, 3)
    >>> _ = torch.nn.init.constant_(layer.weight, 2.0)
    >>> WeightPenalty(l1=1.0, l2=0.5)(layer, None, None, None).item()
    24.0
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        super().__init__()
        if min(l1, l2) < 0 or max(l1, l2) == 0:
            raise ValueError(
                "l1 and l2 must not be negative and one must be positive; got "
                f"l1={l1}, l2={l2}"
            )
        self.l1 = l1
        self.l2 = l2

    def forward(self, autoencoder, inputs, lengths: torch.Tensor | None, code):
        """Scalar."""
        total = 0.0
        for weight in layer_weights(autoencoder):
            if self.l1:
                total = total + self.l1 * weight.abs().sum()
            if self.l2:
                total = total + self.l2 * (weight**2).sum()
        return total


LAYERS = torch.nn.Linear, torch.nn.modules.conv._ConvNd, FramesConvolution


def layer_weights(model):
    """The weights of linear, convolutional and recurrent layers, normalised or not.

    Example
    -------
    >>> [w.shape for w in layer_weights(torch.nn.Linear(4, 8))]
    [torch.Size([8, 4])]
    """
    for module in model.modules():
        if isinstance(module, LAYERS):
            yield module.weight
        elif isinstance(module, torch.nn.RNNBase):
            for name, weight in module.named_parameters():
                if name.startswith("weight"):
                    yield weight


def check_positive(name, value):
    """``value``, or a ValueError that names it."""
    if not value > 0:
        raise ValueError(f"{name} must be positive; got {value}")
    return value
