"""The splits of a corpus as a training takes them: from its files, or from shards."""

import json

import torch
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.utils.distributed import (
    get_rank,
    is_distributed_initialized,
)

from speechbrain_vae.dataio.dataset import batch_sampler, feature_dataset
from speechbrain_vae.dataio.feature_cache import open_features
from speechbrain_vae.dataio.manifests import SPLITS, read_manifest
from speechbrain_vae.dataio.sharded import (
    ShardBatchSampler,
    ShardedUtterances,
    read_index,
)

STATISTICS_HOURS = 20
"""Of the training set of a sharded corpus, for what is fitted before training."""


def open_data(hparams, manifests):
    """All splits of the corpus of a training YAML, and what was left out of it.

    Arguments
    ---------
    hparams : dict
        With ``corpus``, ``data_folder``, ``features``, ``feature_cache`` and
        ``num_workers``.
    manifests : Path
        Folder with the manifests of a corpus that is not in shards.

    Returns
    -------
    data : dict
        :class:`ManifestData` or :class:`ShardData` of each split.
    skipped : list of dict
        ``wav`` and ``reason`` of each file that was left out.
    """
    features = hparams["features"]
    if hparams["corpus"] == "shards":
        folder = hparams["data_folder"]
        data = {split: ShardData(folder, split, features) for split in SPLITS}
        return data, read_index(folder)["skipped"]
    data = {
        split: ManifestData(
            manifests / f"{split}.json",
            features,
            hparams["feature_cache"],
            hparams["num_workers"],
        )
        for split in SPLITS
    }
    return data, json.loads((manifests / "skipped.json").read_text())["skipped"]


class ManifestData:
    """One split of a prepared corpus: its manifest, and features on disk.

    Arguments
    ---------
    manifest : str or Path
        As ``prepare`` wrote it.
    features : speechbrain_vae.lobes.features.LogMel
        What computes the features.
    cache : str or Path, optional
        Folder of the feature cache.
    workers : int
        Processes that fill it.
    """

    def __init__(self, manifest, features, cache=None, workers=0):
        entries = read_manifest(manifest)
        self.feats = open_features(entries, features, cache, workers)
        self.dataset = feature_dataset(entries, self.feats)
        self.ids = list(entries)
        self.name = str
        self.facts = {
            "hours": sum(entry["duration"] for entry in entries.values()) / 3600,
            "utterances": len(entries),
            "speakers": len({entry["spk_id"] for entry in entries.values()}),
        }

    def loader(self, hparams, shuffle):
        """Options of SpeechBrain's loader of batches."""
        sampler = batch_sampler(
            self.dataset,
            hparams["batch_seconds"],
            hparams["num_buckets"],
            hparams["seed"],
            shuffle,
        )
        if shuffle:
            check_batches(len(sampler))
        return {"batch_sampler": sampler, **_workers(hparams)}

    def train_set(self, brain, loader):
        """What ``Brain.fit`` takes; it shares the batches out itself."""
        brain.train_sampler = loader["batch_sampler"]
        return self.dataset


class ShardData:
    """One split of a folder of shards; features are computed as they are read.

    Arguments
    ---------
    folder : str or Path
        As :mod:`speechbrain_vae.dataio.shard` wrote it.
    split : str
        ``"train"``, ``"valid"`` or ``"test"``.
    features : speechbrain_vae.lobes.features.LogMel
        What computes the features.
    """

    def __init__(self, folder, split, features):
        self.dataset = ShardedUtterances(folder, split, features)
        # What is fitted to a whole training set, or drawn, needs no thousand hours.
        self.ids = self.dataset.spread(STATISTICS_HOURS)
        self.feats = _FeatsOf(self.dataset)
        self.name = self.dataset.utt_id
        facts = self.dataset.facts
        self.facts = {
            "hours": facts["seconds"] / 3600,
            "utterances": facts["utterances"],
            "speakers": facts["speakers"],
        }

    def loader(self, hparams, shuffle):
        """Options of SpeechBrain's loader of batches."""
        sampler = ShardBatchSampler(
            self.dataset.durations,
            self.dataset.sizes,
            hparams["batch_seconds"],
            hparams["seed"],
            shuffle,
            # Every process validates all.
            rank=(get_rank() or 0) if shuffle else 0,
            processes=_processes() if shuffle else 1,
        )
        return {
            "batch_sampler": sampler,
            "collate_fn": PaddedBatch,
            **_workers(hparams),
        }

    def train_set(self, brain, loader):
        """What ``Brain.fit`` takes: a loader, whose batches are shared out already."""
        brain.train_sampler = loader["batch_sampler"]
        batches = make_dataloader(self.dataset, **loader)
        brain.checkpointer.add_recoverable("dataloader-TRAIN", batches)
        return batches


class _FeatsOf:
    """The features of utterances by their index."""

    def __init__(self, utterances):
        self.utterances = utterances

    def __getitem__(self, index):
        return self.utterances.feats(index)


def check_batches(number):
    """Refuse fewer than two batches an epoch for each process."""
    if 1 < _processes() >= number:
        raise ValueError(
            f"the training set makes {number} batches; {_processes()} processes need "
            f"at least {_processes() + 1}: lower batch_seconds, or use fewer processes"
        )


def _processes():
    return torch.distributed.get_world_size() if is_distributed_initialized() else 1


def _workers(hparams):
    workers = hparams["num_workers"]
    return {"num_workers": workers, "persistent_workers": workers > 0}
