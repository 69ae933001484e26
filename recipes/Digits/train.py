#!/usr/bin/env python3
"""Recognise the digits of speakers not heard before, from the features of a front end.

> python recipes/Digits/train.py recipes/Digits/hparams/linear.yaml \
>     --data_folder free-spoken-digit-dataset --features results/vae/1234/export
"""

import statistics
import sys

from speechbrain_vae.classification import UtteranceBrain, make_classifier
from speechbrain_vae.downstream import (
    fit_and_test,
    frozen_features,
    open_corpus,
    open_experiment,
    write_results,
)
from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.nnet.distributed import leave_processes


class DigitBrain(UtteranceBrain):
    """Digits by their name."""


def speakers_of(entries):
    """Names of all speakers, sorted; as many as there are folds."""
    return sorted({e["spk_id"] for part in entries.values() for e in part.values()})


def leave_one_out(entries, fold):
    """One speaker to test, the next one to validate, the others to train.

    Arguments
    ---------
    entries : dict of str to dict
        Entries of any splits.
    fold : int
        Which speaker, in the order of their names.

    Returns
    -------
    dict of str to dict
        Entries of ``train``, ``valid`` and ``test``.
    """
    speakers = speakers_of(entries)
    if len(speakers) < 3:
        raise ValueError(
            f"training takes 3 speakers or more, there are {len(speakers)}"
        )
    if fold not in range(len(speakers)):
        raise ValueError(f"fold is all or 0 to {len(speakers) - 1}, got {fold}")
    test, valid = speakers[fold], speakers[(fold + 1) % len(speakers)]
    divided = {"train": {}, "valid": {}, "test": {}}
    for part in entries.values():
        for utt, entry in part.items():
            split = {test: "test", valid: "valid"}.get(entry["spk_id"], "train")
            divided[split][utt] = entry
    return divided


def run(hparams, run_opts, entries, test=True, feats=None):
    """Train on the speakers of one fold and test on the one left out.

    Arguments
    ---------
    hparams : dict
        Of the YAML, with ``fold`` as a number.
    run_opts : dict
        SpeechBrain's.
    entries : dict of str to dict
        Entries of each split of the corpus, with ``words``.
    test : bool
        Whether the speaker left out is looked at.
    feats : mapping, optional
        Of :func:`~speechbrain_vae.downstream.frozen_features`, for the next fold.

    Returns
    -------
    dict
        ``error`` and ``accuracy`` in percent, of ``valid`` and ``test``.
    """
    feats = feats or frozen_features(entries, hparams)
    divided = leave_one_out(entries, hparams["fold"])
    brain, sets = make_classifier(
        DigitBrain, hparams, run_opts, divided, "words", "digit", feats
    )
    return fit_and_test(brain, sets, test)


def over_folds(results):
    """Mean and standard deviation of each number over the folds.

    Arguments
    ---------
    results : list of dict
        Of :func:`run`, one a fold.

    Returns
    -------
    dict
        ``NAME`` and ``NAME.spread``.
    """
    means = {name: statistics.mean(r[name] for r in results) for name in results[0]}
    spreads = {
        f"{name}.spread": statistics.stdev(r[name] for r in results) for name in means
    }
    return means | spreads


def main(argv):
    """Prepare, train and test, once or once for each speaker."""
    with one_line_errors():
        hparams, run_opts = open_experiment(argv)
        entries = open_corpus(hparams, "words")
        if hparams["fold"] != "all":
            run(hparams, run_opts, entries)
            return
        folder, results = hparams["output_folder"], []
        feats = frozen_features(entries, hparams)
        for fold in range(len(speakers_of(entries))):
            changes = {"fold": fold, "output_folder": f"{folder}/fold{fold}"}
            hparams, run_opts = open_experiment(argv, **changes)
            results.append(run(hparams, run_opts, entries, feats=feats))
        results = over_folds(results)
        write_results(results, folder)
        print(
            f"accuracy {results['test.accuracy']:.1f} % over the speakers, "
            f"standard deviation {results['test.accuracy.spread']:.1f}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
    leave_processes()
