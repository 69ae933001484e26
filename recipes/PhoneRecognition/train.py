#!/usr/bin/env python3
"""Recognise phones from the features of a front end, with CTC.

> python recipes/PhoneRecognition/train.py \
>     recipes/PhoneRecognition/hparams/linear.yaml \
>     --corpus speechocean762 --data_folder D --features results/vae/1234/export
"""

import sys

import speechbrain as sb
import torch
from speechbrain.dataio.encoder import CTCTextEncoder
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.metric_stats import ErrorRateStats

from speechbrain_vae.analysis.phones import ARPABET, fold_timit, plain
from speechbrain_vae.ctc import CtcBrain
from speechbrain_vae.downstream import (
    check_labels,
    downstream_sets,
    fit_and_test,
    make_brain,
    open_corpus,
    open_experiment,
)
from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.nnet.distributed import leave_processes


class PhoneBrain(CtcBrain):
    """CTC over phones; the phone error rate of the greedy path."""

    metric = "PER"

    def compute_objectives(self, predictions, batch, stage):
        """CTC loss."""
        log_probs, lengths = predictions
        phones, phone_lengths = batch.phone_ids
        if stage != sb.Stage.TRAIN:
            for penalty, errors in self.errors.items():
                errors.append(
                    batch.id,
                    decode(log_probs, lengths, penalty),
                    phones,
                    target_len=phone_lengths,
                    ind2lab=self.labels.decode_ndim,
                )
        return self.ctc_loss(log_probs, lengths, batch.phone_ids)

    def on_stage_start(self, stage, epoch=None):
        """Count errors anew, on the test set with the penalty of the checkpoint."""
        penalties = self.hparams.blank_penalties
        if stage == sb.Stage.TEST:
            best = self.checkpointer.find_checkpoint(min_key=self.metric)
            penalties = [best.meta["blank_penalty"]]
        self.errors = {penalty: ErrorRateStats() for penalty in penalties}

    def evaluation_metrics(self, stage):
        """The phone error rate, in percent; of the test, details in a file."""
        rates = {p: float(e.summarize("error_rate")) for p, e in self.errors.items()}
        best = min(rates, key=rates.get)
        if stage == sb.Stage.TEST:
            self.write_errors(self.errors[best], self.hparams.errors_file)
        return {"PER": rates[best], "blank_penalty": best}


def decode(log_probs, lengths, blank_penalty=0.0):
    """Greedy phones, with the blank's log probability lowered by a constant.

    Arguments
    ---------
    log_probs : torch.Tensor
        Shape [B, T, phones + 1], the blank first.
    lengths : torch.Tensor
        Relative lengths, shape [B].
    blank_penalty : float
        The constant.

    Returns
    -------
    list of list of int

    Example
    -------
    >>> log_probs = torch.tensor([[[0.6, 0.4], [0.9, 0.1]]]).log()
    >>> decode(log_probs, torch.ones(1)), decode(log_probs, torch.ones(1), 1.0)
    ([[]], [[1]])
    """
    blank = torch.zeros(log_probs.shape[-1], device=log_probs.device)
    blank[0] = blank_penalty
    return ctc_greedy_decode(log_probs - blank, lengths, blank_id=0)


def phone_labels(entries):
    """Phones of each utterance, in one of the two sets of 39.

    A corpus of ARPAbet keeps its phones, without stress. One with the 61 phones of
    TIMIT is folded as its results are (Lee and Hon 1989).

    Arguments
    ---------
    entries : dict of str to dict
        Entries of each split, with ``phones``.

    Returns
    -------
    dict of str to dict of str to list of str
    """
    phones = {
        split: {utt: [plain(p) for p in e["phones"].split()] for utt, e in part.items()}
        for split, part in entries.items()
    }
    if {p for items in phones["train"].values() for p in items} <= set(ARPABET):
        return phones
    for part in phones.values():
        for utt, items in part.items():
            part[utt] = [p for p in map(fold_timit, items) if p is not None]
    return phones


def run(hparams, run_opts, entries, test=True):
    """Train a recogniser on these entries and test it.

    Arguments
    ---------
    hparams : dict
        Of the YAML.
    run_opts : dict
        SpeechBrain's.
    entries : dict of str to dict
        Entries of each split, with ``phones``.
    test : bool
        Whether the test set is looked at.

    Returns
    -------
    dict
        ``valid.PER`` and ``test.PER`` in percent, and the losses.
    """
    phones = phone_labels(entries)
    check_labels("phone", phones)
    labels = CTCTextEncoder()
    labels.insert_blank(index=0)
    labels.update_from_iterable(phones["train"].values())

    targets = {
        utt: labels.encode_sequence_torch(items)
        for part in phones.values()
        for utt, items in part.items()
    }

    @takes("id")
    @provides("phone_ids")
    def encode(utt):
        return targets[utt]

    brain = make_brain(PhoneBrain, hparams, run_opts, len(labels), labels=labels)
    brain.labels = labels
    sets = downstream_sets(entries, hparams, [encode], ["phone_ids"])
    return fit_and_test(brain, sets, test)


def main(argv):
    """Prepare, train and test."""
    with one_line_errors():
        hparams, run_opts = open_experiment(argv)
        run(hparams, run_opts, open_corpus(hparams, "phones"))


if __name__ == "__main__":
    main(sys.argv[1:])
    leave_processes()
