"""Training targets: what the encoder hears and what the decoder must say.

A target is called as ``target(feats, lengths)`` and returns the encoder's input,
the frames to predict and the mask of those that count. It is independent of the
bottleneck: the same Gaussian bottleneck reconstructs, denoises or predicts.
"""

import torch

from speechbrain_vae.nnet.lengths import length_mask


class Reconstruction(torch.nn.Module):
    """Predict the input itself.

    Example
    -------
    >>> inputs, target, mask = Reconstruction()(torch.randn(2, 10, 80))
    >>> mask.shape
    torch.Size([2, 10])
    """

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encoder input [B, T, F], target [B, T, F] and its mask [B, T]."""
        return feats, feats, length_mask(feats, lengths)


class Denoising(torch.nn.Module):
    """Predict the clean input of a corrupted one (Vincent et al. 2008).

    Arguments
    ---------
    corruptions : list
        Modules from features [B, T, F] to features, applied in turn in training:
        :class:`AdditiveNoise`, ``torch.nn.Dropout``, or SpeechBrain's
        ``SpectrogramDrop`` (SpecAugment).

    Example
    -------
    >>> target = Denoising([AdditiveNoise(0.3), torch.nn.Dropout(0.1)])
    >>> feats = torch.randn(2, 10, 80)
    >>> inputs, clean, mask = target(feats)
    >>> bool((clean == feats).all()), bool((inputs == feats).all())
    (True, False)
    """

    def __init__(self, corruptions):
        super().__init__()
        if not corruptions:
            raise ValueError("corruptions must name at least one corruption")
        self.corruptions = torch.nn.ModuleList(corruptions)

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encoder input [B, T, F], target [B, T, F] and its mask [B, T]."""
        inputs = feats
        if self.training:
            # Some corruptions, SpeechBrain's SpectrogramDrop among them, work in place.
            inputs = feats.clone()
            for corruption in self.corruptions:
                inputs = corruption(inputs)
        return inputs, feats, length_mask(feats, lengths)


class AdditiveNoise(torch.nn.Module):
    """White Gaussian noise on normalised features.

    Arguments
    ---------
    std : float
        Standard deviation, in units of the features.

    Example
    -------
    >>> AdditiveNoise(0.5)(torch.zeros(2, 10, 80)).shape
    torch.Size([2, 10, 80])
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        if std <= 0:
            raise ValueError(f"std must be positive; got {std}")
        self.std = std

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Noisy features, same shape."""
        return feats + self.std * torch.randn_like(feats)


class FrequencyWarp(torch.nn.Module):
    """Vocal tract length perturbation of log-Mel frames (Jaitly and Hinton 2013).

    The Mel axis of each utterance is stretched by a factor of its own, as if somebody
    smaller or taller had said it.

    Arguments
    ---------
    limit : float
        Factors are uniform between ``1 - limit`` and ``1 + limit``.

    Example
    -------
    >>> FrequencyWarp(0.1)(torch.randn(2, 10, 80)).shape
    torch.Size([2, 10, 80])
    """

    def __init__(self, limit: float = 0.12) -> None:
        super().__init__()
        if not 0 < limit < 1:
            raise ValueError(f"limit must be between 0 and 1; got {limit}")
        self.limit = limit

    def forward(self, feats: torch.Tensor) -> torch.Tensor:
        """Warped features, same shape [B, T, F]."""
        batch, _, bands = feats.shape
        spread = 2 * torch.rand(batch, 1, device=feats.device) - 1
        position = torch.arange(bands, device=feats.device) * (1 + self.limit * spread)
        position = position.clamp(max=bands - 1)
        low = position.floor().long()
        high = (low + 1).clamp(max=bands - 1)
        share = (position - low).unsqueeze(1).to(feats.dtype)
        lower, upper = (
            feats.gather(2, band.unsqueeze(1).expand_as(feats)) for band in (low, high)
        )
        return torch.lerp(lower, upper, share)


class Augmented(torch.nn.Module):
    """Another target, of varied features: input and target vary together.

    :class:`Denoising` asks for the clean frames behind a corruption; this one trains
    on more voices than were recorded.

    Arguments
    ---------
    target : torch.nn.Module
        The target of the varied features.
    augmentations : list
        Modules from features [B, T, F] to features, applied in turn in training.

    Example
    -------
    >>> target = Augmented(FramesAhead(3), [FrequencyWarp()])
    >>> inputs, ahead, mask = target(torch.randn(2, 10, 80))
    >>> bool((inputs[:, 3:] == ahead[:, :-3]).all())
    True
    """

    def __init__(self, target: torch.nn.Module, augmentations) -> None:
        super().__init__()
        if not augmentations:
            raise ValueError("augmentations must name at least one augmentation")
        self.target = target
        self.augmentations = torch.nn.ModuleList(augmentations)

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encoder input [B, T, F], target [B, T, F] and its mask [B, T]."""
        if self.training:
            feats = feats.clone()
            for augmentation in self.augmentations:
                feats = augmentation(feats)
        return self.target(feats, lengths)


class FramesAhead(torch.nn.Module):
    """Predict the frame ``shift`` steps ahead (Chung et al. 2019, equation 1).

    With a causal encoder this is autoregressive predictive coding. The last
    ``shift`` valid frames have no target and do not count.

    Arguments
    ---------
    shift : int
        Distance to the target, in input frames.

    Example
    -------
    >>> inputs, target, mask = FramesAhead(3)(torch.randn(2, 10, 80))
    >>> mask.sum(1)
    tensor([7, 7])
    """

    def __init__(self, shift: int) -> None:
        super().__init__()
        if shift < 1:
            raise ValueError(f"shift must be at least 1; got {shift}")
        self.shift = shift

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encoder input [B, T, F], target [B, T, F] and its mask [B, T]."""
        valid = length_mask(feats, lengths)
        ahead = torch.zeros_like(feats)
        mask = torch.zeros_like(valid)
        ahead[:, : -self.shift] = feats[:, self.shift :]
        mask[:, : -self.shift] = valid[:, self.shift :]
        return feats, ahead, mask
