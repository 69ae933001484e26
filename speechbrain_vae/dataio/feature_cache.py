"""Features of a manifest, from a verified cache on disk or computed anew.

A cache file holds the dB features of up to :data:`CHUNK` utterances. Its name is a
hash of the feature settings and of every source file's path, size and time of
change, so a changed file or setting is another name, never a stale hit. Every
utterance carries a checksum that is verified whenever it is read.
"""

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
    """dB features of a manifest's utterances, memory-mapped from a cache.

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
        self.places = {}
        self._maps: dict[str, np.ndarray] = {}
        ids = sorted(entries)
        chunks = [ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK)]
        keys = [self._key(chunk) for chunk in chunks]
        missing = [
            (key, chunk)
            for key, chunk in zip(keys, chunks, strict=True)
            if not self._complete(key)
        ]
        if missing:
            self._build(missing, workers)
        for key in keys:
            index = json.loads(self._index(key).read_text())
            for utt_id, place in index.items():
                self.places[utt_id] = (key, *place)

    def __getitem__(self, utt_id):
        """Features of one utterance, float32, shape [T, F]."""
        key, start, frames, checksum = self.places[utt_id]
        if key not in self._maps:
            self._maps[key] = np.memmap(self._data(key), dtype=np.float32, mode="r")
        size = self.computed.features.size
        flat = np.array(self._maps[key][start * size : (start + frames) * size])
        if zlib.crc32(flat) != checksum:
            logger.warning(
                "%s is damaged; the features of %s are computed from its audio. "
                "Delete the file to have it made anew.",
                self._data(key),
                utt_id,
            )
            return self.computed[utt_id]
        return torch.from_numpy(flat).view(frames, size)

    def __len__(self):
        return len(self.places)

    def __getstate__(self):
        # A memory map would be pickled as the data it points to.
        return {**self.__dict__, "_maps": {}}

    def frames(self, utt_id):
        """Number of frames of one utterance, from the index alone."""
        return self.places[utt_id][2]

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

    def _complete(self, key):
        data, index = self._data(key), self._index(key)
        if not (data.exists() and index.exists()):
            return False
        places = json.loads(index.read_text()).values()
        frames = sum(frames for _, frames, _ in places)
        return data.stat().st_size == 4 * frames * self.computed.features.size

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
        temporary = self._data(key).with_suffix(f".{os.getpid()}.tmp")
        try:
            with open(temporary, "wb") as out:
                for utt_id in chunk:
                    feats = next(stream).contiguous().numpy()
                    out.write(feats.data)
                    index[utt_id] = (start, len(feats), zlib.crc32(feats))
                    start += len(feats)
                    bar.update()
            os.replace(temporary, self._data(key))
            # The index comes last: a chunk without one is made anew.
            temporary.write_text(json.dumps(index))
            os.replace(temporary, self._index(key))
        except OSError as error:
            raise OSError(
                f"cannot write the feature cache {self.folder}: {error.strerror}. Free "
                "some space, or set feature_cache: null to compute features on the fly"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)


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
