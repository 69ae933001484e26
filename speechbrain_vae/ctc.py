"""Brain of the recipes that learn with CTC."""

import speechbrain as sb

from speechbrain_vae.dataio.text import BLANK
from speechbrain_vae.downstream import DownstreamBrain


class CtcBrain(DownstreamBrain):
    """Gives each frame the log-probabilities of units, among them CTC's blank.

    See :class:`speechbrain_vae.downstream.DownstreamBrain` for the arguments.

    Source: Graves et al., "Connectionist temporal classification", ICML 2006.

    Example
    -------
    >>> import torch
    >>> log_probs = torch.zeros(1, 4, 2).log_softmax(-1)
    >>> targets = torch.ones(1, 1), torch.ones(1)
    >>> # 10 of the 16 paths of four frames say one unit, and a blank around it.
    >>> round(CtcBrain.ctc_loss(log_probs, torch.ones(1), targets).exp().item(), 4)
    1.6
    """

    def compute_forward(self, batch, stage):
        """Log-probabilities [B, T, units] and relative lengths [B]."""
        feats, lengths = self.represent(batch.to(self.device))
        logits, lengths = self.modules.model(feats, lengths)
        return logits.log_softmax(-1), lengths

    @staticmethod
    def ctc_loss(log_probs, lengths, targets):
        """Negative log-likelihood of the targets in nats a unit, mean over the batch.

        Arguments
        ---------
        log_probs : torch.Tensor
            Shape [B, T, units].
        lengths : torch.Tensor
            Relative lengths, shape [B].
        targets : tuple of torch.Tensor
            Units [B, U] and their relative lengths [B], as a batch holds them.

        Returns
        -------
        torch.Tensor
            Shape [].
        """
        units, unit_lengths = targets
        return sb.nnet.losses.ctc_loss(
            log_probs, units, lengths, unit_lengths, blank_index=BLANK
        )
