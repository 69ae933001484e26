"""Utterances that carry one label each: what speaker and digit recipes share."""

import speechbrain as sb
import torch
from speechbrain.dataio.encoder import CategoricalEncoder
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.metric_stats import ClassificationStats

from speechbrain_vae.downstream import (
    DownstreamBrain,
    check_labels,
    downstream_sets,
    make_brain,
)


class UtteranceBrain(DownstreamBrain):
    """Cross-entropy over labels of utterances; the share of wrong ones, in percent.

    The model gives logits [B, classes]; ``labels``, set by :func:`make_classifier`, has
    their names.
    """

    metric = "error"

    def compute_forward(self, batch, stage):
        """Logits [B, classes]."""
        return self.modules.model(*self.represent(batch.to(self.device)))

    def compute_objectives(self, logits, batch, stage):
        """Cross-entropy."""
        if stage != sb.Stage.TRAIN:
            self.stats.append(
                batch.id,
                predictions=self.labels.decode_ndim(logits.argmax(-1)),
                targets=self.labels.decode_ndim(batch.label),
            )
        return torch.nn.functional.cross_entropy(logits, batch.label)

    def on_stage_start(self, stage, epoch=None):
        """Count errors anew."""
        self.stats = ClassificationStats()

    def evaluation_metrics(self, stage):
        """Error and accuracy in percent; of the test, each class in a file."""
        if stage == sb.Stage.TEST:
            self.write_errors(self.stats, self.hparams.errors_file)
        accuracy = 100 * self.stats.summarize("accuracy")
        return {"error": 100 - accuracy, "accuracy": accuracy}


def make_classifier(brain_class, hparams, run_opts, entries, key, name, feats=None):
    """A Brain for labels of utterances, and its datasets.

    Arguments
    ---------
    brain_class : type
        :class:`UtteranceBrain`, or a subclass.
    hparams : dict
        See :func:`~speechbrain_vae.downstream.make_brain`.
    run_opts : dict
        SpeechBrain's.
    entries : dict of str to dict
        Entries of each split.
    key : str
        Key of an entry that has its label: "spk_id".
    name : str
        What a label is: "speaker".
    feats : mapping, optional
        Of :func:`~speechbrain_vae.downstream.frozen_features`.

    Returns
    -------
    brain : UtteranceBrain
    sets : dict of str to speechbrain.dataio.dataset.DynamicItemDataset

    Raises
    ------
    ValueError
        A label that training never saw.
    """
    names = {
        split: {utt: [entry[key]] for utt, entry in part.items()}
        for split, part in entries.items()
    }
    check_labels(name, names)
    labels = CategoricalEncoder()
    labels.update_from_iterable(names["train"].values(), sequence_input=True)

    @takes(key)
    @provides("label")
    def encode(label):
        return labels.encode_label(label)

    brain = make_brain(brain_class, hparams, run_opts, len(labels), labels=labels)
    brain.labels = labels
    return brain, downstream_sets(entries, hparams, [encode], ["label"], feats)
