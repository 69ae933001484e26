"""A loss that is not a number stops the training and names the recordings."""

import torch

from speechbrain_vae.nnet.quantisers.base import NonFiniteFramesError

MAX_IDS = 20
"""Utterances that the message names."""


class NonFiniteLossError(ValueError):
    """The training was stopped; the message names the batches."""


class NamesNonFiniteLoss:
    """A part of a Brain: says which utterances made the loss infinite or NaN.

    SpeechBrain stops after ``nonfinite_patience`` such losses in an epoch and does not
    say where. Frames that a quantiser refuses count as such a loss and their batch is
    left out; in evaluation they stop at once. Written before ``speechbrain.Brain`` in
    the bases of a class whose batches have an ``id``.

    Example
    -------
    >>> import speechbrain as sb
    >>> class MyBrain(NamesNonFiniteLoss, sb.Brain):
    ...     pass
    >>> brain = MyBrain()
    """

    nonfinite_batches = ()
    _ids = ()

    def fit_batch(self, batch):
        """As in SpeechBrain, with the batch remembered."""
        self._ids = list(batch.id)
        try:
            return super().fit_batch(batch)
        except NonFiniteFramesError:
            loss = torch.tensor(torch.nan)
            self.check_loss_isfinite(loss)
            return loss

    def evaluate_batch(self, batch, stage):
        """As in SpeechBrain; the error names the batch."""
        try:
            return super().evaluate_batch(batch, stage)
        except NonFiniteFramesError as error:
            raise NonFiniteLossError(
                f"the evaluation of {_names(list(batch.id))} failed: {error}"
            ) from error

    def check_loss_isfinite(self, loss):
        """As in SpeechBrain; the error names the batches of the epoch."""
        before = self.nonfinite_count
        if before == 0:
            self.nonfinite_batches = []
        try:
            super().check_loss_isfinite(loss)
        except ValueError as error:
            batches = [*self.nonfinite_batches, self._ids]
            raise NonFiniteLossError(
                f"the loss of {len(batches)} batches of an epoch is not finite, the "
                f"first of {_names(batches[0])}"
                + (f", the last of {_names(batches[-1])}" if batches[1:] else "")
                + "; look at these recordings, or lower lr, or see "
                "--nonfinite_patience and --skip_nonfinite_grads of SpeechBrain"
            ) from error
        if self.nonfinite_count > before:
            self.nonfinite_batches.append(self._ids)


def _names(ids):
    rest = len(ids) - MAX_IDS
    return ", ".join(ids[:MAX_IDS]) + (f" and {rest} more" if rest > 0 else "")
