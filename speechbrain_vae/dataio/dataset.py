"""Datasets and batches of features for pretraining."""

from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import DynamicBatchSampler
from speechbrain.utils.data_pipeline import provides, takes


def feature_dataset(entries: dict, feats):
    """A dataset that yields ``id`` and ``feats``, the dB features [T, F].

    Arguments
    ---------
    entries : dict
        Manifest, from utterance ID to its entry.
    feats : CachedFeatures or ComputedFeatures
        Where the features come from.

    Returns
    -------
    speechbrain.dataio.dataset.DynamicItemDataset

    Example
    -------
    >>> import torch
    >>> dataset = feature_dataset({"a": {"duration": 1.0}}, {"a": torch.zeros(101, 80)})
    >>> dataset[0]["feats"].shape
    torch.Size([101, 80])
    """

    @takes("id")
    @provides("feats")
    def pipeline(utt_id):
        return feats[utt_id]

    return DynamicItemDataset(
        entries, dynamic_items=[pipeline], output_keys=["id", "feats"]
    )


def batch_sampler(
    dataset, batch_seconds: float, num_buckets: int, seed: int, shuffle: bool = True
):
    """Batches of utterances of similar length, at most ``batch_seconds`` long.

    Arguments
    ---------
    dataset : speechbrain.dataio.dataset.DynamicItemDataset
        Its entries have a ``duration`` in seconds.
    batch_seconds : float
        Longest batch, padding included. A longer utterance is a batch of its own.
    num_buckets : int
        Number of lengths that are told apart.
    seed : int
        The order is a function of the seed and the epoch.
    shuffle : bool
        Whether it changes from epoch to epoch.

    Returns
    -------
    speechbrain.dataio.sampler.DynamicBatchSampler
    """
    return DynamicBatchSampler(
        dataset,
        max_batch_length=batch_seconds,
        num_buckets=num_buckets,
        shuffle=shuffle,
        batch_ordering="random" if shuffle else "ascending",
        seed=seed,
    )
