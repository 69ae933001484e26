#!/usr/bin/env python3
"""Recognise words from the features of a front end, with CTC over subword units.

> python recipes/ASR/train.py recipes/ASR/hparams/speechocean762_bilstm.yaml \
>     --data_folder D --features results/vae/1234/export
"""

import csv
import logging
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.decoders import ctc_greedy_decode
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.metric_stats import ErrorRateStats

from speechbrain_vae.ctc import CtcBrain
from speechbrain_vae.dataio.text import BLANK, train_units
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

logger = logging.getLogger("speechbrain_vae.recipes.asr")


class AsrBrain(CtcBrain):
    """CTC over units; word and character error rates."""

    metric = "WER"

    def compute_objectives(self, predictions, batch, stage):
        """CTC loss."""
        log_probs, lengths = predictions
        if stage != sb.Stage.TRAIN:
            said = [self.words[utt] for utt in batch.id]
            heard = self.search(log_probs, lengths, stage)
            self.wer.append(batch.id, heard, said)
            self.cer.append(batch.id, heard, said)
        return self.ctc_loss(log_probs, lengths, batch.unit_ids)

    def search(self, log_probs, lengths, stage):
        """Words of each utterance; the beam is for the test set alone."""
        if stage == sb.Stage.TEST and self.searcher is not None:
            best = self.searcher(log_probs, lengths)
            return [hypotheses[0].text.split() for hypotheses in best]
        best = ctc_greedy_decode(log_probs, lengths, blank_id=BLANK)
        return [self.units.decode(ids).split() for ids in best]

    def on_fit_batch_start(self, batch, should_step):
        """Warm up: without it a Conformer may not learn at all."""
        super().on_fit_batch_start(batch, should_step)
        steps = self.hparams.lr_warmup_steps
        if self.optimizer_step < steps:
            for group in self.optimizer.param_groups:
                group["lr"] = self.hparams.lr * (self.optimizer_step + 1) / steps

    def on_stage_start(self, stage, epoch=None):
        """Count errors anew."""
        self.wer = ErrorRateStats()
        self.cer = ErrorRateStats(split_tokens=True)

    def evaluation_metrics(self, stage):
        """Error rates in percent; of the test, details in files."""
        if stage == sb.Stage.TEST:
            folder = Path(self.hparams.output_folder)
            for name, errors in (("wer", self.wer), ("cer", self.cer)):
                self.write_errors(errors, folder / f"{name}.txt")
            rows = error_rates_by_speaker(self.wer, self.cer, self.speakers)
            run_on_main(write_table, args=[rows, folder / "wer_by_speaker.csv"])
        return {
            "WER": float(self.wer.summarize("error_rate")),
            "CER": float(self.cer.summarize("error_rate")),
        }


def error_rates_by_speaker(wer, cer, speakers):
    """Error rates of each speaker, the worst one first.

    Arguments
    ---------
    wer, cer : ErrorRateStats
        Of the same utterances.
    speakers : dict of str to str
        Speaker of each utterance.

    Returns
    -------
    list of dict
        With ``speaker``, ``utterances``, ``words``, ``WER`` and ``CER`` in percent.

    Example
    -------
    >>> wer, cer = ErrorRateStats(), ErrorRateStats(split_tokens=True)
    >>> for errors in (wer, cer):
    ...     errors.append(["a", "b"], [["GO"], ["NO"]], [["GO"], ["GO"]])
    >>> error_rates_by_speaker(wer, cer, {"a": "ann", "b": "bob"})[0]
    {'speaker': 'bob', 'utterances': 1, 'words': 1, 'WER': 100.0, 'CER': 50.0}
    """
    totals = defaultdict(lambda: {"utterances": 0, "WER": [0, 0], "CER": [0, 0]})
    for name, errors in (("WER", wer), ("CER", cer)):
        for score in errors.scores:
            total = totals[speakers[score["key"]]]
            total[name][0] += score["num_edits"]
            total[name][1] += score["num_ref_tokens"]
            total["utterances"] += name == "WER"
    rows = []
    for speaker, total in totals.items():
        rates = {n: round(100 * total[n][0] / total[n][1], 2) for n in ("WER", "CER")}
        counts = {"utterances": total["utterances"], "words": total["WER"][1]}
        rows.append({"speaker": speaker, **counts, **rates})
    return sorted(rows, key=lambda row: (-row["WER"], row["speaker"]))


def write_table(rows, path):
    """Write dicts of the same keys as a CSV file."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def make_searcher(hparams, units):
    """The beam search of a YAML, or None for greedy search.

    Arguments
    ---------
    hparams : dict
        With ``search`` ("greedy" or "beam"), ``ngram`` and ``searcher``.
    units : sentencepiece.SentencePieceProcessor

    Returns
    -------
    speechbrain.decoders.ctc.CTCBaseSearcher or None

    Raises
    ------
    ValueError, FileNotFoundError, ImportError
        An unknown search, an n-gram that greedy search has no use for, that is not
        there, or that the package kenlm is missing for.
    """
    search, ngram = hparams["search"], hparams["ngram"]
    if search not in ("greedy", "beam"):
        raise ValueError(f"search is greedy or beam; got {search!r}")
    if search == "greedy":
        if ngram is not None:
            raise ValueError("greedy search takes no ngram; add --search beam")
        return None
    if ngram is not None and not Path(ngram).is_file():
        raise FileNotFoundError(f"the n-gram {ngram} does not exist: ngram is a file")
    vocabulary = [units.id_to_piece(index) for index in range(len(units))]
    return hparams["searcher"](blank_index=BLANK, vocab_list=vocabulary)


def warn_of_too_many_units(entries, units, frame_shift):
    """Log how many utterances CTC cannot align, and learns nothing from.

    Arguments
    ---------
    entries : dict
        Of the training set.
    units : sentencepiece.SentencePieceProcessor
    frame_shift : float
        Of the recogniser, in seconds.

    Returns
    -------
    int
        Utterances with more units than frames, a blank between equal ones counted.
    """
    count = 0
    for entry in entries.values():
        ids = units.encode(entry["words"])
        needed = len(ids) + sum(a == b for a, b in pairwise(ids))
        count += needed > entry["duration"] / frame_shift
    if count:
        logger.warning(
            "%d of %d training utterances have more units than frames of %g s and "
            "teach nothing: choose larger units, or lower frame_shift",
            count,
            len(entries),
            frame_shift,
        )
    return count


def run(hparams, run_opts, entries, test=True):
    """Train a recogniser on these entries and test it.

    Arguments
    ---------
    hparams : dict
        Of the YAML.
    run_opts : dict
        SpeechBrain's.
    entries : dict of str to dict
        Entries of each split, with ``words``.
    test : bool
        Whether the test set is looked at.

    Returns
    -------
    dict
        ``valid.WER``, ``valid.CER``, ``test.WER`` and ``test.CER`` in percent, and
        the losses.
    """
    words = {
        split: {utt: entry["words"].split() for utt, entry in part.items()}
        for split, part in entries.items()
    }
    characters = {
        split: {utt: set("".join(items)) for utt, items in part.items()}
        for split, part in words.items()
    }
    check_labels("character", characters)
    units = train_units(
        [" ".join(items) for items in words["train"].values()],
        hparams["output_folder"],
        hparams["unit_type"],
        hparams["vocab_size"],
    )
    searcher = make_searcher(hparams, units)
    warn_of_too_many_units(entries["train"], units, hparams["frame_shift"])

    @takes("words")
    @provides("unit_ids")
    def encode(text):
        return torch.tensor(units.encode(text))

    brain = make_brain(AsrBrain, hparams, run_opts, len(units))
    brain.units, brain.searcher = units, searcher
    brain.words = {utt: said for part in words.values() for utt, said in part.items()}
    brain.speakers = {u: e["spk_id"] for p in entries.values() for u, e in p.items()}
    sets = downstream_sets(entries, hparams, [encode], ["unit_ids"])
    return fit_and_test(brain, sets, test)


def main(argv):
    """Prepare, train and test."""
    with one_line_errors():
        hparams, run_opts = open_experiment(argv)
        run(hparams, run_opts, open_corpus(hparams, "words"))


if __name__ == "__main__":
    main(sys.argv[1:])
    leave_processes()
