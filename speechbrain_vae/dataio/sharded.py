"""Corpora in tar shards: what a training reads of them, and in which order.

A folder of shards (:mod:`speechbrain_vae.dataio.shard` writes one) holds for each split
tar files in the layout of WebDataset, ``ID.flac`` and ``ID.json`` for each utterance,
and beside each tar an index of where in it an utterance lies. A training opens some
large files instead of millions of small ones, and still may read any utterance.
"""

import io
import json
import os
import zlib
from pathlib import Path

import numpy as np
import soundfile
import torch

from speechbrain_vae.dataio.manifests import SPLITS, printable
from speechbrain_vae.dataio.open_files import OpenFiles

INDEX = "index.json"
FORMAT = 1
POOL = 4096
"""Utterances, about two shards of them, that are sorted into batches together."""

_LENGTH_NOISE = 0.05
_COMMAND = "python -m speechbrain_vae.dataio.shard"


class ShardError(ValueError):
    """A folder of shards cannot be used; the message says why and what to do."""

    def __init__(self, message):
        # A worker process of torch sends its traceback; our words are its last line.
        super().__init__(message.strip().splitlines()[-1].split("ShardError: ")[-1])


def read_index(folder):
    """The index of a folder of shards.

    Arguments
    ---------
    folder : str or Path
        Written by :mod:`speechbrain_vae.dataio.shard`.

    Returns
    -------
    dict
        ``sample_rate``, ``skipped`` (files left out, and why), and in ``splits`` for
        each split ``utterances``, ``seconds``, ``speakers`` and ``shards``.

    Raises
    ------
    ShardError
        Not a folder of shards, one that is not finished, or a newer one.

    Example
    -------
    >>> read_index("/nowhere")
    Traceback (most recent call last):
      ...
    speechbrain_vae.dataio.sharded.ShardError: /nowhere has no index.json: ...
    """
    path = Path(folder) / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(
            f"{printable(folder)} has no {INDEX}: it is no folder of shards, or not "
            f"finished; write it with {_COMMAND}, or give that command again"
        ) from None
    except ValueError:
        index = None
    if not isinstance(index, dict):
        raise ShardError(
            f"{printable(path)} is damaged: delete it and give the command "
            f"{_COMMAND} again"
        )
    if index.get("format") != FORMAT:
        raise ShardError(
            f"{printable(path)} is of format {index.get('format')}, this "
            f"speechbrain_vae reads {FORMAT}; write the shards again"
        )
    return index


class ShardedUtterances(torch.utils.data.Dataset):
    """The utterances of one split, in the order of their shards.

    What it keeps in memory of an utterance is 20 bytes and its ID. An utterance is
    checked against its checksum whenever it is read.

    Arguments
    ---------
    folder : str or Path
        A folder of shards.
    split : str
        ``"train"``, ``"valid"`` or ``"test"``.
    features : speechbrain_vae.lobes.features.LogMel
        What computes the features.

    Raises
    ------
    ShardError
        A shard is missing or damaged, or of another sampling rate.
    """

    def __init__(self, folder, split, features):
        if split not in SPLITS:
            raise ValueError(f"split is one of {', '.join(SPLITS)}; got {split!r}")
        index = read_index(folder)
        if index["sample_rate"] != features.sample_rate:
            raise ShardError(
                f"{printable(folder)} was written at {index['sample_rate']} Hz, the "
                f"model works at {features.sample_rate} Hz: write shards with "
                f"--sample_rate {features.sample_rate}"
            )
        self.facts = index["splits"][split]
        self.features = features
        self.paths, columns = [], []
        for shard in self.facts["shards"]:
            path = os.path.join(folder, shard["name"])
            columns.append(_read_columns(path, shard))
            self.paths.append(path)
        self.sizes = np.array([len(c["ids"]) for c in columns], dtype=np.int64)
        self.shard_of = np.repeat(np.arange(len(columns), dtype=np.int32), self.sizes)
        self.ids = [
            np.array([utt.encode() for utt in c["ids"]], dtype=np.bytes_)
            for c in columns
        ]
        self.durations = _column(columns, "durations", np.float32)
        self.offsets = _column(columns, "offsets", np.int64)
        self.lengths = _column(columns, "lengths", np.int32)
        self.checksums = _column(columns, "crc32", np.uint32)
        self._files = OpenFiles()

    def __len__(self):
        return len(self.durations)

    def __getitem__(self, index):
        """``id`` and ``feats``, the dB features [T, F], of one utterance."""
        return {"id": self.utt_id(index), "feats": self.feats(index)}

    def utt_id(self, index):
        """The ID of an utterance."""
        shard = self.shard_of[index]
        first = self.sizes[:shard].sum()
        return self.ids[shard][index - first].decode()

    def feats(self, index):
        """Its dB features, float32, shape [T, F]."""
        wav = torch.from_numpy(self.audio(index))
        feats, counts = self.features.raw(wav.unsqueeze(0))
        return feats[0, : int(counts)]

    def audio(self, index):
        """Its samples, float32, shape [S]."""
        offset, length = int(self.offsets[index]), int(self.lengths[index])
        path = self.paths[self.shard_of[index]]
        try:
            data = self._files.read(path, length, offset)
        except OSError as error:
            raise ShardError(f"{printable(path)}: {error.strerror}") from error
        if zlib.crc32(data) != self.checksums[index]:
            raise damaged(path, f"utterance {self.utt_id(index)}")
        wav, _ = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
        return wav[:, 0] if wav.shape[1] == 1 else wav.mean(axis=1)

    def spread(self, hours):
        """Indices of about so many hours, evenly from all shards."""
        share = min(1.0, 3600 * hours / max(self.durations.sum(), 1e-9))
        count = max(1, round(share * len(self)))
        return np.linspace(0, len(self) - 1, count).round().astype(int).tolist()


def damaged(path, where):
    """The error of a shard that is not what was written."""
    return ShardError(
        f"the shard {printable(path)} is damaged ({where}): delete it and give the "
        f"command {_COMMAND} again"
    )


def columns_path(tar):
    """Where the index of a shard lies."""
    return f"{os.path.splitext(tar)[0]}.json"


def _read_columns(path, shard):
    try:
        if os.stat(path).st_size != shard["bytes"]:
            raise damaged(path, "its size is another one")
        with open(columns_path(path), encoding="utf-8") as file:
            columns = json.load(file)
    except (OSError, ValueError) as error:
        if isinstance(error, ShardError):
            raise
        raise damaged(path, "it or its index cannot be read") from error
    if not isinstance(columns, dict):
        raise damaged(path, "its index cannot be read")
    if columns["sha256"] != shard["sha256"]:
        raise damaged(path, "its index is that of another shard")
    return columns


def _column(columns, name, dtype):
    parts = [np.array(c[name], dtype=dtype) for c in columns]
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


class ShardBatchSampler:
    """Batches of utterances of similar length, from a few shards at a time.

    The order is a function of seed and epoch: shards are shuffled, their utterances
    pass in pools of :data:`POOL`, a pool is sorted by length (with a little noise, so
    that epochs differ), cut into batches, and these are shuffled. Process ``rank`` of
    ``processes`` takes every ``processes``-th batch: all do the same number of steps,
    and each utterance comes once an epoch; where the number of batches has a rest,
    the largest are halved.

    Arguments
    ---------
    durations : numpy.ndarray
        Seconds of each utterance, in the order of the shards.
    shard_sizes : numpy.ndarray
        Utterances in each shard.
    batch_seconds : float
        Longest batch, padding included. A longer utterance is a batch of its own.
    seed : int
        Of the order.
    shuffle : bool
        Whether epochs differ. Otherwise the batches go from short to long.
    rank, processes : int
        Which share to give.

    Example
    -------
    >>> sampler = ShardBatchSampler(np.array([1.0, 2.0, 1.0, 2.0]), [2, 2], 4.0, 0)
    >>> sorted(sorted(batch) for batch in sampler)
    [[0, 2], [1, 3]]
    >>> len(sampler)
    2
    """

    def __init__(
        self,
        durations,
        shard_sizes,
        batch_seconds,
        seed,
        shuffle=True,
        rank=0,
        processes=1,
    ):
        if batch_seconds <= 0:
            raise ValueError(f"batch_seconds must be above 0; got {batch_seconds}")
        if not 0 <= rank < processes:
            raise ValueError(f"rank lies below processes; got {rank} of {processes}")
        self.durations = np.asarray(durations)
        ends = np.cumsum(shard_sizes)
        self.shards = list(zip(ends - shard_sizes, ends, strict=True))
        self.batch_seconds = batch_seconds
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.processes = processes
        self.epoch = 0
        self._planned = None, []

    def set_epoch(self, epoch):
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __iter__(self):
        return iter(self._plan()[self.rank :: self.processes])

    def __len__(self):
        """Steps of this epoch, the same for every process."""
        return len(self._plan()) // self.processes

    def _plan(self):
        if self._planned[0] != self.epoch:
            self._planned = self.epoch, self._make_plan()
        return self._planned[1]

    def _make_plan(self):
        rng = np.random.default_rng([self.seed, self.epoch if self.shuffle else 0])
        batches = []
        if self.shuffle:
            order = rng.permutation(len(self.shards))
            stream = np.concatenate([np.arange(*self.shards[i]) for i in order])
            for start in range(0, len(stream), POOL):
                pool = stream[start : start + POOL]
                noise = 1 + _LENGTH_NOISE * rng.uniform(-1, 1, len(pool))
                found = self._cut(pool, self.durations[pool] * noise)
                batches += [found[i] for i in rng.permutation(len(found))]
        else:
            batches = self._cut(np.arange(len(self.durations)), self.durations)
        return self._whole_steps(batches)

    def _cut(self, pool, key):
        batches, batch, longest = [], [], 0.0
        for index in pool[np.argsort(key, kind="stable")].tolist():
            longest = max(longest, self.durations[index])
            if batch and longest * (len(batch) + 1) > self.batch_seconds:
                batches.append(batch)
                batch, longest = [], self.durations[index]
            batch.append(index)
        return [*batches, batch] if batch else batches

    def _whole_steps(self, batches):
        while len(batches) % self.processes:
            largest = max(range(len(batches)), key=lambda i: len(batches[i]))
            batch = batches[largest]
            if len(batch) < 2:
                raise ValueError(
                    f"{len(batches)} utterances cannot be shared by {self.processes} "
                    "processes; use fewer"
                )
            batches[largest] = batch[::2]
            batches.append(batch[1::2])
        return batches
