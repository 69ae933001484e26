"""Time jitter: a regulariser of discrete latents."""

import torch

from speechbrain_vae.nnet.lengths import frame_counts


class TimeJitter(torch.nn.Module):
    """Replaces latent frames by a neighbour in time (Chorowski et al. 2019, III-C).

    In training, each frame is replaced with probability ``probability`` by the one
    before or after it, either as likely, so that a latent cannot count on its exact
    place and says what lasts longer than a frame. Frames at the ends of an utterance
    repeat themselves instead of taking padding. In evaluation it does nothing.

    Arguments
    ---------
    probability : float
        Of a frame being replaced.

    Example
    -------
    >>> jitter = TimeJitter(0.5)
    >>> x = torch.arange(6.0).view(1, 6, 1)
    >>> bool(((jitter(x) - x).abs() <= 1).all())
    True
    >>> torch.equal(jitter.eval()(x), x)
    True
    """

    def __init__(self, probability: float = 0.12) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must be between 0 and 1; got {probability}")
        self.probability = probability

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Jitter a batch.

        Arguments
        ---------
        x : torch.Tensor
            Latents, shape [B, T, D].
        lengths : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        torch.Tensor
            Shape [B, T, D].
        """
        # x [B, T, D]
        if not self.training:
            return x
        batch, frames, _ = x.shape
        uniform = torch.rand(batch, frames, device=x.device)
        after = uniform < self.probability / 2
        before = uniform > 1 - self.probability / 2
        places = torch.arange(frames, device=x.device)
        counts = frame_counts(lengths, batch, frames, x.device).to(x.device)
        last = (counts - 1).clamp(min=0).unsqueeze(1)
        moved = (places + after.long() - before.long()).clamp(min=0)
        # Padding stays where it is.
        moved = torch.where(places > last, places, torch.minimum(moved, last))
        return x.gather(1, moved.unsqueeze(-1).expand_as(x))

    def extra_repr(self):
        """The probability, for ``print``."""
        return f"probability={self.probability}"
