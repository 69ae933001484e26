#!/usr/bin/env python3
"""Recognise phones from the features of a front end, with CTC.

> python recipes/PhoneRecognition/train.py \
>     recipes/PhoneRecognition/hparams/linear.yaml \
>     --corpus speechocean762 --data_folder D --features results/vae/1234/export
"""

import sys

import speechbrain as sb
from speechbrain.dataio.encoder import CTCTextEncoder
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.utils.data_pipeline import provides, takes

from speechbrain_vae.analysis.phones import fold_to_39
from speechbrain_vae.downstream import (
    DownstreamBrain,
    check_labels,
    downstream_sets,
    fit_and_test,
    make_brain,
    open_corpus,
    open_experiment,
)
from speechbrain_vae.pretraining import one_line_errors


class PhoneBrain(DownstreamBrain):
    """CTC over phones; the phone error rate of the greedy path."""

    metric = "PER"

    def compute_forward(self, batch, stage):
        """Log-probabilities [B, T, phones + 1] and relative lengths [B]."""
        feats, lengths = self.represent(batch.to(self.device))
        return self.modules.model(feats, lengths).log_softmax(-1), lengths

    def compute_objectives(self, predictions, batch, stage):
        """CTC loss."""
        log_probs, lengths = predictions
        phones, phone_lengths = batch.phone_ids
        if stage != sb.Stage.TRAIN:
            self.errors.append(
                batch.id,
                ctc_greedy_decode(log_probs, lengths, blank_id=0),
                phones,
                target_len=phone_lengths,
                ind2lab=self.labels.decode_ndim,
            )
        return sb.nnet.losses.ctc_loss(
            log_probs, phones, lengths, phone_lengths, blank_index=0
        )

    def on_stage_start(self, stage, epoch=None):
        """Count errors anew."""
        self.errors = sb.utils.metric_stats.ErrorRateStats()

    def evaluation_metrics(self, stage):
        """The phone error rate, in percent; of the test, details in a file."""
        if stage == sb.Stage.TEST:
            with open(self.hparams.errors_file, "w", encoding="utf-8") as file:
                self.errors.write_stats(file)
        return {"PER": float(self.errors.summarize("error_rate"))}


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
    phones = {
        split: {utt: fold_to_39(entry["phones"].split()) for utt, entry in part.items()}
        for split, part in entries.items()
    }
    check_labels("phone", phones)
    labels = CTCTextEncoder()
    labels.insert_blank(index=0)
    labels.update_from_iterable(phones["train"].values())

    @takes("phones")
    @provides("phone_ids")
    def encode(text):
        return labels.encode_sequence_torch(fold_to_39(text.split()))

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
