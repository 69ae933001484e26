"""Features of a manifest, from a verified cache on disk or computed anew.

A cache file holds the dB features of up to :data:`CHUNK` utterances. Its name is a
hash of the feature settings and of every source file's path, size and time of
change, so a changed file or setting is another name, never a stale hit. Every
utterance carries a checksum that is verified whenever it is read.
"""

import contextlib
import hashlib
import json
import logging
import os
import zlib
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.distributed import run_on_main
from tqdm import tqdm

from speechbrain_vae.dataio.audio import load_entry
from speechbrain_vae.dataio.manifests import replacing
from speechbrain_vae.dataio.open_files import OpenFiles

logger = logging.getLogger(__name__)

CHUNK = 256
"""Utterances in one cache file: what an interrupted preparation loses at most."""

VERSION = 1
"""Part of the key: changes when the files' format or the features' code does."""


class ComputedFeatures:
    """dB features of a manifest's utterances, decoded from audio at each use.

    Arguments
    ---------
    entries : dict
        Manifest, from utterance ID to its entry.
    features : speechbrain_vae.lobes.features.LogMel
        What computes them.
    """

    def __init__(self, entries: dict, features) -> None:
        self.entries = entries
        self.features = features

    def __getitem__(self, utt_id):
        """Features of one utterance, float32, shape [T, F]."""
        wav = load_entry(self.entries[utt_id])
        feats, counts = self.features.raw(wav.unsqueeze(0))
        return feats[0, : int(counts)]

    def __len__(self):
        return len(self.entries)


class CachedFeatures:
    """dB features of a manifest's utterances, read from a cache.

    What is missing is computed at construction, chunk by chunk: an interrupted
    construction goes on from its last finished chunk.

    Arguments
    ---------
    entries : dict
        Manifest, from utterance ID to its entry.
    features : speechbrain_vae.lobes.features.LogMel
        What computes them.
    folder : str or Path
        Where cache files lie; several manifests may share it.
    workers : int
        Processes that compute features; 0 computes in this one.
    """

    def __init__(
        self, entries: dict, features, folder: str | Path, workers: int = 0
    ) -> None:
        self.computed = ComputedFeatures(entries, features)
        self.folder = Path(folder)
        self.places: dict[str, tuple] = {}
        self._files = OpenFiles()
        ids = sorted(entries)
        chunks = [ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK)]
        missing = []
        for chunk in chunks:
            key = self._key(chunk)
            if not self._found(key):
                missing.append((key, chunk))
        if missing:
            self._build(missing, workers)

    def __getitem__(self, utt_id):
        """Features of one utterance, float32, shape [T, F]."""
        key, start, frames, checksum = self.places[utt_id]
        data, frame = b"", self._frame_bytes()
        # A file that is gone is as one that is damaged.
        with contextlib.suppress(OSError):
            data = self._files.read(self._data(key), frames * frame, start * frame)
        if zlib.crc32(data) != checksum:
            logger.warning(
                "%s is damaged; the features of %s are computed from its audio. "
                "Delete the file to have it made anew.",
                self._data(key),
                utt_id,
            )
            return self.computed[utt_id]
        flat = np.frombuffer(data, np.float32).copy()
        return torch.from_numpy(flat).view(frames, self.computed.features.size)

    def __len__(self):
        return len(self.places)

    def frames(self, utt_id):
        """Number of frames of one utterance, from the index alone."""
        return self.places[utt_id][2]

    def _frame_bytes(self):
        return self.computed.features.size * np.dtype(np.float32).itemsize

    def _data(self, key):
        return self.folder / f"{key}.f32"

    def _index(self, key):
        return self.folder / f"{key}.json"

    def _key(self, chunk):
        content = [VERSION, self.computed.features.settings]
        for utt_id in chunk:
            entry = self.computed.entries[utt_id]
            source = os.stat(entry["wav"])
            segment = [entry.get("start"), entry.get("stop")]
            content.append(
                [utt_id, entry["wav"], source.st_size, source.st_mtime_ns, *segment]
            )
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]

    def _found(self, key):
        """Whether a chunk is there whole; its places are taken up."""
        try:
            index = json.loads(self._index(key).read_text())
            frames = sum(frames for _, frames, _ in index.values())
            size = self._data(key).stat().st_size
        except (FileNotFoundError, ValueError):
            return False
        if size != frames * self._frame_bytes():
            return False
        self._take_up(key, index)
        return True

    def _take_up(self, key, index):
        for utt_id, place in index.items():
            self.places[utt_id] = (key, *place)

    def _build(self, missing, workers):
        self.folder.mkdir(parents=True, exist_ok=True)
        todo = [utt_id for _, chunk in missing for utt_id in chunk]
        loader = torch.utils.data.DataLoader(
            _ById(self.computed, todo), batch_size=None, num_workers=workers
        )
        with tqdm(total=len(todo), desc="Features", dynamic_ncols=True) as bar:
            stream = iter(loader)
            for key, chunk in missing:
                self._write(key, chunk, stream, bar)

    def _write(self, key, chunk, stream, bar):
        index, start = {}, 0
        # Several processes may write it.
        suffix = f".{os.getpid()}.tmp"
        try:
            with replacing(self._data(key), "wb", suffix) as out:
                for utt_id in chunk:
                    feats = next(stream).contiguous().numpy()
                    out.write(feats.data)
                    index[utt_id] = (start, len(feats), zlib.crc32(feats))
                    start += len(feats)
                    bar.update()
            # The index comes last: a chunk without one is made anew.
            with replacing(self._index(key), suffix=suffix) as out:
                json.dump(index, out)
        except OSError as error:
            raise OSError(
                f"cannot write the feature cache {self.folder}: {error.strerror}. Free "
                "some space, or set feature_cache: null to compute features on the fly"
            ) from error
        self._take_up(key, index)


class _ById(torch.utils.data.Dataset):
    def __init__(self, features, ids):
        self.features = features
        self.ids = ids

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return self.features[self.ids[index]]


def open_features(
    entries: dict, features, cache: str | Path | None = None, workers: int = 0
) -> CachedFeatures | ComputedFeatures:
    """Features of a manifest: cached when a cache folder is given.

    Of several DDP processes the main one fills the cache, while the others wait.

    Arguments
    ---------
    entries : dict
        Manifest with absolute paths, from utterance ID to its entry.
    features : speechbrain_vae.lobes.features.LogMel
        What computes them.
    cache : str or Path, optional
        Cache folder.
    workers : int
        Processes that fill the cache.

    Returns
    -------
    CachedFeatures or ComputedFeatures

    Example
    -------
    >>> import soundfile
    >>> from speechbrain_vae.lobes.features import LogMel
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", np.random.randn(16000) / 10, 16000)
    >>> entries = {"a": {"wav": str(folder / "a.wav"), "duration": 1.0}}
    >>> open_features(entries, LogMel(), folder / "cache")["a"].shape
    torch.Size([101, 80])
    """
    if cache is None:
        return ComputedFeatures(entries, features)
    return run_on_main(CachedFeatures, args=[entries, features, cache, workers])
