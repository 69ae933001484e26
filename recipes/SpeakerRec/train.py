#!/usr/bin/env python3
"""Recognise speakers from the features of a front end.

> python recipes/SpeakerRec/train.py \
>     recipes/SpeakerRec/hparams/linear.yaml \
>     --corpus speechocean762 --data_folder D --features results/vae/1234/export
"""

import logging
import sys
from collections import defaultdict

import speechbrain as sb
import torch

from speechbrain_vae.analysis.trials import (
    make_trials,
    read_trials,
    verification_errors,
)
from speechbrain_vae.classification import UtteranceBrain, make_classifier
from speechbrain_vae.dataio.manifests import assign_splits, group_by_split
from speechbrain_vae.downstream import (
    downstream_sets,
    fit_and_test,
    frozen_features,
    open_corpus,
    open_experiment,
    write_results,
)
from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.nnet.distributed import leave_processes

logger = logging.getLogger(__name__)

TASKS = ("identification", "verification")
SPLITS = ("utterances", "corpus")


class SpeakerBrain(UtteranceBrain):
    """Speakers of a closed set, and embeddings of any others."""

    unheard = frozenset()
    """Utterances of speakers that are in the test split of the corpus."""

    def evaluation_metrics(self, stage):
        """Error and accuracy; the latter also on the speakers of the test split."""
        stats = super().evaluation_metrics(stage)
        right = [
            prediction == target
            for utt, prediction, target in zip(
                self.stats.ids, self.stats.predictions, self.stats.targets, strict=True
            )
            if utt in self.unheard
        ]
        if right:
            stats["unheard_accuracy"] = 100 * sum(right) / len(right)
        return stats

    @torch.no_grad()
    def embed(self, dataset):
        """Vector [E] of each utterance, one at a time: none depends on padding."""
        self.modules.eval()
        embeddings = {}
        for batch in self.make_dataloader(dataset, sb.Stage.TEST, batch_size=1):
            feats, lengths = self.represent(batch.to(self.device))
            embeddings[batch.id[0]] = self.model.embed(feats, lengths)[0].cpu()
        return embeddings


def divide(entries, seed, valid_fraction=0.2, test_fraction=0.2):
    """Divide the utterances of each speaker, so that every split has every speaker.

    Arguments
    ---------
    entries : dict of str to dict
        Entries of any speakers.
    seed : int
        Seed of the division.
    valid_fraction, test_fraction : float
        Shares of the utterances of a speaker; one with too few is left out.

    Returns
    -------
    dict of str to dict
        Entries of ``train``, ``valid`` and ``test``.
    """
    speakers = defaultdict(list)
    for utt, entry in entries.items():
        speakers[entry["spk_id"]].append(utt)
    needed = 2 + bool(test_fraction)
    few = sorted(spk for spk, utts in speakers.items() if len(utts) < needed)
    if few:
        logger.warning(
            "%d speakers have fewer than %d utterances and are left out: %s",
            *(len(few), needed, ", ".join(few[:5]) + ", ..." * (len(few) > 5)),
        )
    if len(speakers) - len(few) < 2:
        raise ValueError(
            f"{len(speakers) - len(few)} speakers have {needed} utterances or more, "
            "which is what every speaker needs; give more data"
        )
    split_of = {}
    for speaker in speakers.keys() - few:
        utts = speakers[speaker]
        split_of |= assign_splits(utts, valid_fraction, test_fraction, seed)
    return group_by_split(entries, lambda utt, entry: split_of.get(utt))


def identify(hparams, run_opts, entries, test):
    """Train on some utterances of each speaker and test on others."""
    feats = frozen_features(entries, hparams)
    divided, unheard = entries, frozenset()
    if hparams["split"] == "utterances":
        everything = {utt: e for part in entries.values() for utt, e in part.items()}
        divided, unheard = (
            divide(everything, hparams["seed"]),
            frozenset(entries["test"]),
        )
    brain, sets = make_classifier(
        SpeakerBrain, hparams, run_opts, divided, "spk_id", "speaker", feats
    )
    brain.unheard = unheard
    return fit_and_test(brain, sets, test)


def verify(hparams, run_opts, entries, test):
    """Train on the speakers of the train split, verify those of the test split."""
    # Before the training, which may take long.
    if hparams["trials"]:
        trials = read_trials(hparams["trials"], entries["test"])
    else:
        speakers = {utt: entry["spk_id"] for utt, entry in entries["test"].items()}
        trials = make_trials(speakers, hparams["num_trials"], hparams["seed"])
    feats = frozen_features(entries, hparams)
    divided = divide(entries["train"], hparams["seed"], test_fraction=0)
    divided = {split: divided[split] for split in ("train", "valid")}
    brain, sets = make_classifier(
        SpeakerBrain, hparams, run_opts, divided, "spk_id", "speaker", feats
    )
    results = fit_and_test(brain, sets, test=False)
    if test:
        brain.on_evaluate_start(min_key=brain.metric)
        sets = downstream_sets({"test": entries["test"]}, hparams, feats=feats)
        errors = verification_errors(brain.embed(sets["test"]), trials)
        results |= {f"test.{name}": value for name, value in errors.items()}
        hparams["train_logger"].log_stats({"trials": len(trials)}, test_stats=errors)
        write_results(results, hparams["output_folder"])
    return results


def run(hparams, run_opts, entries, test=True):
    """Train a recogniser on these entries and test it.

    Arguments
    ---------
    hparams : dict
        Of the YAML.
    run_opts : dict
        SpeechBrain's.
    entries : dict of str to dict
        Entries of each split of the corpus, with ``spk_id``.
    test : bool
        Whether the test set is looked at.

    Returns
    -------
    dict
        Of identification, ``error`` and ``accuracy`` in percent of ``valid`` and
        ``test``, and ``unheard_accuracy``, that on the speakers of the corpus's test
        split; of verification, ``test.EER`` in percent and ``test.minDCF``.
    """
    check_choices(hparams)
    task = identify if hparams["task"] == "identification" else verify
    return task(hparams, run_opts, entries, test)


def check_choices(hparams):
    """Refuse a task or a split that there is none of."""
    for key, known in (("task", TASKS), ("split", SPLITS)):
        if hparams[key] not in known:
            raise ValueError(f"{key} is one of {', '.join(known)}, got {hparams[key]}")


def main(argv):
    """Prepare, train and test."""
    with one_line_errors():
        hparams, run_opts = open_experiment(argv)
        # Before the corpus is prepared, too.
        check_choices(hparams)
        run(hparams, run_opts, open_corpus(hparams, "spk_id"))


if __name__ == "__main__":
    main(sys.argv[1:])
    leave_processes()
