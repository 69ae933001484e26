#!/usr/bin/env python3
"""Times of phones, from recordings and what is said in them.

> python recipes/Align/train.py recipes/Align/hparams/align.yaml \
>     --corpus speechocean762 --data_folder D

writes ``alignment.tsv.gz``. A BiLSTM learns the phones of the train set with CTC, whose
peaks say roughly where they are. A network that sees windows of frames learns the
states of phones there, is aligned, learns from its own alignment, and so on.
"""

import hashlib
import json
import logging
import sys
from collections import Counter
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import run_on_main

from speechbrain_vae.analysis.forced_alignment import (
    REACH,
    States,
    differences,
    phones_of,
    read_lexicon,
    spread,
    write_alignment,
)
from speechbrain_vae.ctc import CtcBrain
from speechbrain_vae.dataio.dataset import batch_sampler
from speechbrain_vae.downstream import (
    SameInput,
    downstream_sets,
    fit_and_test,
    frozen_features,
    make_brain,
    open_corpus,
    open_experiment,
    write_results,
)
from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.nnet.distributed import leave_processes
from speechbrain_vae.nnet.lengths import frame_counts, length_mask

logger = logging.getLogger("speechbrain_vae.recipes.align")

PHONES = "phones (the corpus or the lexicon was changed)"


class PhoneBrain(CtcBrain):
    """Phones by CTC, and the scores of an utterance."""

    def compute_objectives(self, predictions, batch, stage):
        """CTC loss."""
        return self.ctc_loss(*predictions, batch.target)

    @torch.no_grad()
    def scores(self, dataset):
        """Log scores [T, classes] of each utterance, and its identifier."""
        hparams = self.hparams
        sampler = batch_sampler(
            dataset, hparams.batch_seconds, hparams.num_buckets, hparams.seed, False
        )
        for batch in make_dataloader(dataset, batch_sampler=sampler):
            log_probs, lengths = self.compute_forward(batch, sb.Stage.TEST)
            counts = frame_counts(lengths, *log_probs.shape[:2])
            for utt, scores, count in zip(batch.id, log_probs, counts, strict=True):
                yield utt, scores[: int(count)].cpu()


class FrameBrain(PhoneBrain):
    """The state of every frame, by cross-entropy."""

    def compute_objectives(self, predictions, batch, stage):
        """Cross-entropy of valid frames."""
        log_probs, lengths = predictions
        states, _ = batch.target
        mask = length_mask(log_probs, lengths)
        return torch.nn.functional.nll_loss(log_probs[mask], states[mask])


class Aligner:
    """The rounds of the recipe, each in a folder of its own.

    Arguments
    ---------
    argv : list of str
        Of the command line.
    """

    def __init__(self, argv):
        self.argv = argv
        self.hparams, _ = open_experiment(argv)
        self.folder = Path(self.hparams["output_folder"])
        path = self.hparams["lexicon"]
        lexicon = read_lexicon(path) if path else None
        entries = open_corpus(self.hparams)
        self.phones, self.entries = {}, {}
        for split, part in entries.items():
            self.phones[split] = phones_of(part, lexicon)
            self.entries[split] = {utt: part[utt] for utt in self.phones[split]}
            if not self.entries[split]:
                what = "words that are all in the lexicon" if lexicon else "phones"
                raise ValueError(
                    f"no utterance of the {split} set has {what}; give the lexicon "
                    "that has its words (--lexicon FILE), or choose a corpus with "
                    "phones, for example --corpus speechocean762"
                )
        said = json.dumps(self.phones, sort_keys=True).encode()
        digest = {"sha256": hashlib.sha256(said).hexdigest()}
        self.same_phones = SameInput(digest, PHONES)
        self.feats = frozen_features(self.entries, self.hparams)
        self.said = {p for phones in self.phones["train"].values() for p in phones}

    def round(self, number, spans=None, weights=None, splits=("train", "valid")):
        """Train a model and align with it.

        Arguments
        ---------
        number : int
            0 for CTC, which needs no more.
        spans : dict of str to list
            Frames of the phones of each utterance that the model learns from.
        weights : dict of str to torch.Tensor, optional
            Where the model starts.
        splits : tuple of str
            What is aligned.

        Returns
        -------
        spans : dict of str to list
        weights : dict of str to torch.Tensor
        """
        changes = {"output_folder": str(self.folder / f"round{number}")}
        if number:
            changes["number_of_epochs"] = self.hparams["frame_epochs"]
        hparams, run_opts = open_experiment(self.argv, **changes)
        if number:
            hparams["model"] = hparams["frame_model"]
        hparams["checkpointer"].add_recoverable(
            "same_phones", self.same_phones, optional_load=True
        )
        states = States(self.said, **({} if number else {"per_phone": 1}))
        targets, prior = self.targets(states, spans)
        entries = {
            split: {
                utt: e for utt, e in part.items() if split == "test" or utt in targets
            }
            for split, part in self.entries.items()
        }

        @takes("id")
        @provides("target")
        def target(utt):
            return targets[utt]

        kind = FrameBrain if number else PhoneBrain
        brain = make_brain(kind, hparams, run_opts, states.size)
        if weights:
            brain.model.load_state_dict(weights)
        sets = downstream_sets(entries, hparams, [target], ["target"], self.feats)
        fit_and_test(brain, sets, test=False)
        brain.on_evaluate_start(min_key=brain.metric)
        brain.modules.eval()
        found = {}
        for split in splits:
            part = downstream_sets(
                {split: self.entries[split]}, hparams, feats=self.feats
            )[split]
            for utt, scores in brain.scores(part):
                found[utt] = states.align(scores - prior, self.phones[split][utt])
        if not number:
            stride = brain.model.encoder.stride
            found = {
                utt: peaks and self.first_guess(utt, peaks, stride)
                for utt, peaks in found.items()
            }
        return found, brain.model.state_dict()

    def targets(self, states, spans):
        """What is learned of each utterance, and log priors of states."""
        targets = {}
        for split in ("train", "valid"):
            for utt, phones in self.phones[split].items():
                if spans is None:
                    targets[utt] = torch.tensor(states.sequence(phones))
                elif spans.get(utt):
                    frames = len(self.feats[utt])
                    targets[utt] = states.targets(phones, spans[utt], frames)
        if spans is None:
            return targets, 0.0
        count = Counter()
        for utt in self.phones["train"].keys() & targets.keys():
            count.update(targets[utt].tolist())
        share = torch.tensor([float(max(count[i], 1)) for i in range(states.size)])
        return targets, (share / share.sum()).log()

    def first_guess(self, utt, peaks, stride):
        """Frames of phones, from where CTC has them."""
        shift = self.hparams["front_end"].frame_shift
        reach = round(REACH / shift)
        return spread(peaks, stride, reach, len(self.feats[utt]))

    def run(self):
        """All rounds; writes ``alignment.tsv.gz`` and ``results.json``.

        Returns
        -------
        dict of str to list
            ``[start, end, phone]`` of each utterance, in seconds.
        """
        spans, _ = self.round(0)
        self.compare("CTC", spans)
        rounds, weights = self.hparams["rounds"], None
        for number in range(1, rounds + 1):
            last = number == rounds
            splits = ("train", "valid", "test") if last else ("train", "valid")
            spans, weights = self.round(number, spans, weights, splits)
            self.compare(f"round {number}", spans)
        times, short = self.times(spans)
        speakers = {
            utt: entry["spk_id"]
            for part in self.entries.values()
            for utt, entry in part.items()
        }
        alignment = [self.folder / "alignment.tsv.gz", times, speakers]
        run_on_main(write_alignment, args=alignment)
        if short:
            logger.warning(
                "%d utterances are too short for their phones and are left out: %s",
                len(short),
                ", ".join(short[:9]),
            )
        results = {
            "utterances": len(times),
            "left_out": len(short),
            **self.compare("alignment.tsv.gz", spans),
        }
        write_results(results, self.folder)
        return times

    def compare(self, name, spans):
        """How far times are from those that the corpus comes with, by split."""
        times, _ = self.times(spans)
        found = {}
        for split, part in self.entries.items():
            known = {u: e["phone_times"] for u, e in part.items() if "phone_times" in e}
            if known.keys() & times.keys():
                if apart := differences(times, known):
                    found[split] = apart
                logger.info("%s, %s: %s", name, split, apart or "no equal phones")
        return found

    def times(self, spans):
        """Seconds for frames; and the utterances for which there are none."""
        front_end = self.hparams["front_end"]
        shift = front_end.frame_shift
        times, short = {}, []
        for phones in self.phones.values():
            for utt, names in phones.items():
                if not spans.get(utt):
                    short.append(utt)
                    continue
                times[utt] = [
                    [max(0.0, (begin - 0.5) * shift), (end - 0.5) * shift, name]
                    for name, (begin, end) in zip(names, spans[utt], strict=True)
                ]
        return times, short


def main(argv):
    """Prepare, train, align."""
    with one_line_errors():
        Aligner(argv).run()


if __name__ == "__main__":
    main(sys.argv[1:])
    leave_processes()
