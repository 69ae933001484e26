"""Write a corpus as tar shards, for corpora of millions of files.

> python -m speechbrain_vae.dataio.shard --corpus folder --data_folder D --out F
> python train.py hparams/vae.yaml --corpus shards --data_folder F
> python -m speechbrain_vae.dataio.shard --verify F

The corpus is prepared as for a training. Then every split becomes shards in the layout
of WebDataset, its utterances in a random order: a file that is one utterance as it is,
a part of a file as FLAC (WAV where the file holds floating-point samples), with the
entry of the manifest as JSON. Given again after an interruption, or when a shard was
deleted or damaged, the command writes what is missing; the result is the same to the
byte. Whole shards of anything else are never replaced.
"""

import argparse
import hashlib
import io
import json
import logging
import os
import re
import tarfile
import zlib
from pathlib import Path

import soundfile
import torch
import yaml
from scipy.io import wavfile
from tqdm import tqdm

from speechbrain_vae.dataio.manifests import (
    SPLITS,
    printable,
    read_manifest,
    safe_name,
    stable_hash,
    write_json,
)
from speechbrain_vae.dataio.prepare import prepare, what_changed
from speechbrain_vae.dataio.sharded import (
    FORMAT,
    INDEX,
    ShardError,
    columns_path,
    damaged,
    read_index,
)
from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.output_folder import refuse_others
from speechbrain_vae.run_lock import run_lock
from speechbrain_vae.weights import sha256

logger = logging.getLogger(__name__)

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_MIN_BYTES = 10**5
"""Smaller shards are a file for each utterance, or nearly."""


_SHARD = re.compile(
    rf"(?P<split>{'|'.join(SPLITS)})-(?P<number>\d{{6}})\.(?P<suffix>tar|json|tar\.tmp)"
)

_CHANGES = {
    "data_root": "with another data_folder",
    "options": "with other corpus_options",
    "files": "before the files of the corpus changed",
}


def shard_corpus(
    corpus, data_folder, out, shard_size="500MB", utterances=None, **options
):
    """Prepare a corpus and write its splits as shards.

    Arguments
    ---------
    corpus : str
        As for :func:`speechbrain_vae.dataio.prepare.prepare`.
    data_folder : str or Path
        Folder of the corpus.
    out : str or Path
        Folder to write to, a new or empty one, or one of the same arguments: what is
        done there already stays.
    shard_size : str
        Size from which on a shard is closed, such as ``"500MB"``; 100KB at least.
    utterances : int, optional
        Number of utterances of a shard, instead of a size.
    **options
        Passed to ``prepare``.

    Returns
    -------
    dict
        The index, see :func:`speechbrain_vae.dataio.sharded.read_index`.

    Raises
    ------
    ValueError
        As ``prepare``; or ``out`` holds shards of another corpus, of other arguments or
        of files that have changed since, or something else.

    Example
    -------
    >>> import numpy
    >>> folder = getfixture("tmp_path")
    >>> for name in "abc":
    ...     (folder / "data" / name).mkdir(parents=True)
    ...     noise = numpy.random.default_rng(0).normal(size=16000) / 10
    ...     soundfile.write(folder / "data" / name / "1.flac", noise, 16000)
    >>> index = shard_corpus("folder", folder / "data", folder / "out", workers=1)
    >>> index["splits"]["train"]["seconds"]
    1.0
    """
    limit = _bytes(shard_size)
    if utterances is not None and utterances < 1:
        raise ValueError(f"utterances must be 1 or more; got {utterances}")
    if options.get("workers", 2) < 0:
        raise ValueError(f"workers must be 0 or more; got {options['workers']}")
    out = Path(out)
    manifests = out / "manifests"
    _refuse_other_folder(out)
    with run_lock(out):
        if any(map(_SHARD.fullmatch, os.listdir(out))):
            # Before all is decoded anew, and the manifests of the shards replaced.
            changed = what_changed(corpus, data_folder, manifests, **options)
            if changed:
                raise _other_shards(
                    out, _CHANGES.get(changed, f"with another {changed}")
                )
        prepare(corpus, data_folder, manifests, **options)
        skipped = json.loads((manifests / "skipped.json").read_text())["skipped"]
        index = {
            "format": FORMAT,
            "corpus": corpus,
            "sample_rate": options.get("sample_rate", 16000),
            "skipped": skipped,
            "splits": {},
        }
        writers = {
            split: _Writer(
                out,
                split,
                read_manifest(manifests / f"{split}.json"),
                limit,
                utterances,
                options.get("workers", 2),
            )
            for split in SPLITS
        }
        for writer in writers.values():
            writer.find_finished()
        for split, writer in writers.items():
            index["splits"][split] = writer.write()
        write_json(out / INDEX, index)
    return index


def _refuse_other_folder(out):
    # A folder that is finished may hold anything else, notes for example.
    try:
        read_index(out)
    except ShardError:
        names = rf"manifests|{re.escape(INDEX)}(\..*\.tmp)?|{_SHARD.pattern}"
        refuse_others(out, "folder of shards", ours=names)


def _other_shards(out, how):
    return ValueError(
        f"{printable(out)} holds shards made {how}; give another --out, or remove "
        "what is to be written anew"
    )


class _Writer:
    """The shards of one split."""

    def __init__(self, out, split, entries, limit, utterances, workers):
        self.out, self.split, self.entries = out, split, entries
        self.limit = None if utterances else limit
        self.utterances, self.workers = utterances, workers
        # Neighbours of a manifest have one speaker; those of a shard should not.
        self.ids = sorted(entries, key=stable_hash)
        self.finished = {}

    def find_finished(self):
        """Find what is done already; refuse whole shards of anything else."""
        places = {utt: index for index, utt in enumerate(self.ids)}
        for path in sorted(self.out.glob(f"{self.split}-*.tar")):
            found = _SHARD.fullmatch(path.name)
            columns = _whole(path)
            if not found or columns is None:
                continue
            start = places.get(columns["ids"][0], 0)
            ids = self.ids[start : start + len(columns["ids"])]
            if columns["source"] != self._source(ids):
                raise _other_shards(
                    self.out,
                    "with another shard_size or utterances, or before files of the "
                    f"corpus changed ({path.name})",
                )
            self.finished[int(found["number"]), start] = columns

    def write(self):
        self._remove(lambda number, suffix: suffix == "tar.tmp")
        shards, start, samples = [], 0, None
        with tqdm(total=len(self.ids), desc=f"Shards, {self.split}") as bar:
            while start < len(self.ids):
                shard = self.finished.get((len(shards), start))
                if shard:
                    samples = None
                    bar.update(len(shard["ids"]))
                else:
                    (self.out / INDEX).unlink(missing_ok=True)
                    samples = samples or self._samples(start)
                    shard = self._write_shard(len(shards), start, samples, bar)
                shards.append(shard)
                start += len(shard["ids"])
        self._remove(lambda number, suffix: number >= len(shards))
        return {
            "utterances": len(self.ids),
            "seconds": round(sum(s["seconds"] for s in shards), 3),
            "speakers": len({speaker for s in shards for speaker in s["speakers"]}),
            "shards": [
                {
                    "name": self._path(number).name,
                    "utterances": len(shard["ids"]),
                    **{key: shard[key] for key in ("seconds", "bytes", "sha256")},
                }
                for number, shard in enumerate(shards)
            ],
        }

    def _path(self, number):
        return self.out / f"{self.split}-{number:06d}.tar"

    def _samples(self, start):
        todo = _Encoded(self.entries, self.ids[start:])
        return iter(
            torch.utils.data.DataLoader(
                todo, batch_size=None, num_workers=self.workers if len(todo) > 64 else 0
            )
        )

    def _source(self, ids):
        """Hash of all that a shard is made from."""
        digest = hashlib.sha256(f"{self.limit} {self.utterances}".encode())
        for utt in ids:
            entry = self.entries[utt]
            status = os.stat(entry["wav"])
            line = [utt, entry, status.st_size, status.st_mtime_ns]
            digest.update(json.dumps(line, sort_keys=True).encode())
        return digest.hexdigest()

    def _remove(self, unwanted):
        for path in self.out.iterdir():
            found = _SHARD.fullmatch(path.name)
            if not found or found["split"] != self.split:
                continue
            if unwanted(int(found["number"]), found["suffix"]):
                path.unlink()

    def _write_shard(self, number, start, samples, bar):
        path = self._path(number)
        temporary = Path(f"{path}.tmp")
        rows = []
        try:
            with open(temporary, "wb") as file:
                with tarfile.open(
                    fileobj=file, mode="w", format=tarfile.PAX_FORMAT
                ) as tar:
                    for utt in self.ids[start:]:
                        rows.append(_add(tar, utt, self.entries[utt], *next(samples)))
                        bar.update()
                        full = file.tell() >= self.limit if self.limit else False
                        if full or len(rows) == self.utterances:
                            break
                file.flush()
                os.fsync(file.fileno())
            ids = self.ids[start : start + len(rows)]
            columns = _columns(ids, rows, self.entries) | {
                "bytes": temporary.stat().st_size,
                "sha256": sha256(temporary),
                "source": self._source(ids),
            }
            os.replace(temporary, path)
            # The index comes last: a shard without one is made anew.
            write_json(columns_path(path), columns)
        except OSError as error:
            raise OSError(
                f"cannot write {printable(path)}: {error.strerror or error}. Free some "
                "space and give the command again: it goes on from this shard"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
        return columns


def _whole(path):
    """The index of a shard that is there and whole, else ``None``."""
    try:
        columns = json.loads(Path(columns_path(path)).read_text())
        whole = path.stat().st_size == columns["bytes"]
        return columns if whole and columns["ids"] and columns["source"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Encoded(torch.utils.data.Dataset):
    """The bytes of the audio of each entry, and their extension."""

    def __init__(self, entries, ids):
        self.entries, self.ids = entries, ids

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        entry = self.entries[self.ids[index]]
        path, start, stop = entry["wav"], entry["start"], entry["stop"]
        with soundfile.SoundFile(path) as file:
            if start == 0 and stop == file.frames:
                extension = os.path.splitext(path)[1].lower().lstrip(".")
                return Path(path).read_bytes(), extension
            floats = file.subtype in ("FLOAT", "DOUBLE")
            file.seek(start)
            samples = file.read(stop - start, dtype="float32" if floats else "int32")
            rate, subtype = file.samplerate, file.subtype
        encoded = io.BytesIO()
        if floats:
            # FLAC would clip; soundfile's WAV of floats holds the time of writing.
            wavfile.write(encoded, rate, samples)
            return encoded.getvalue(), "wav"
        subtype = "PCM_24" if subtype in ("PCM_24", "PCM_32") else "PCM_16"
        soundfile.write(encoded, samples, rate, subtype, format="FLAC")
        return encoded.getvalue(), "flac"


def _add(tar, utt, entry, audio, extension):
    """Append an utterance; the place, size and checksum of its audio."""
    # WebDataset's key ends at the first dot, and a path would leave its folder.
    key = safe_name(utt)
    if key != utt:
        key = f"{key}-{stable_hash(utt)[:8]}"
    facts = {k: v for k, v in entry.items() if k not in ("wav", "start", "stop")}
    facts = json.dumps({"id": utt, **facts}, sort_keys=True).encode()
    for suffix, data in ((extension, audio), ("json", facts)):
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
        if data is audio:
            # tarfile pads the data to whole blocks.
            offset = tar.offset - -(-len(data) // 512) * 512
    return offset, len(audio), zlib.crc32(audio)


def _columns(ids, rows, entries):
    offsets, lengths, checksums = zip(*rows, strict=True)
    return {
        "ids": ids,
        "durations": [round(entries[utt]["duration"], 6) for utt in ids],
        "offsets": offsets,
        "lengths": lengths,
        "crc32": checksums,
        "seconds": round(sum(entries[utt]["duration"] for utt in ids), 3),
        "speakers": sorted({entries[utt]["spk_id"] for utt in ids}),
    }


def verify(folder):
    """Check every shard of a folder against its SHA-256.

    Arguments
    ---------
    folder : str or Path
        A folder of shards.

    Returns
    -------
    int
        Number of shards, all whole.

    Raises
    ------
    ShardError
        The first one that is missing or damaged.
    """
    shards = [
        s for split in read_index(folder)["splits"].values() for s in split["shards"]
    ]
    for shard in tqdm(shards, desc="Verifying", unit="shard"):
        path = os.path.join(folder, shard["name"])
        if not os.path.exists(path):
            raise damaged(path, "it is missing")
        if sha256(path) != shard["sha256"]:
            raise damaged(path, "its SHA-256 is another one")
    return len(shards)


def _bytes(size):
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMG]B)", str(size).strip().upper())
    number = float(found[1]) * _UNITS[found[2]] if found else 0
    if number < _MIN_BYTES:
        raise ValueError(
            "shard_size is a size such as 500MB or 2GB, with its unit and 100KB at "
            f"least; got {size}"
        )
    return int(number)


def _options(args):
    text = args.corpus_options
    try:
        options = yaml.safe_load(text) or {}
    except yaml.YAMLError:
        options = None
    if not isinstance(options, dict):
        raise ValueError(
            "--corpus_options are names and values such as "
            f'"{{speaker: none, max_seconds: 20}}"; got {text!r}'
        )
    if taken := options.keys() & vars(args).keys():
        raise ValueError(
            f"--corpus_options has {', '.join(taken)}, an option of the command itself"
        )
    return options


def main(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_vae.dataio.shard",
        description="Write a corpus as tar shards for train.py --corpus shards.",
    )
    home = os.path.expanduser  # a shell leaves --out=~/shards as it is
    parser.add_argument("--corpus", default="folder")
    parser.add_argument("--data_folder", help="folder of the corpus")
    parser.add_argument("--out", type=home, help="folder to write to")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--shard_size", default="500MB", help="500MB by default")
    size.add_argument("--utterances", type=int, help="of a shard, instead of a size")
    parser.add_argument("--corpus_options", default="{}", help="as in train.py")
    parser.add_argument("--sample_rate", type=int, default=16000)
    parser.add_argument("--seed", type=int, default=1234, help="of the splits")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    what = "check the shards in F, no more"
    parser.add_argument("--verify", metavar="F", type=home, help=what)
    args = parser.parse_args(argv)
    if not args.verify and not (args.data_folder and args.out):
        parser.error("give --data_folder and --out, or --verify")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with one_line_errors():
        if args.verify:
            print(f"{verify(args.verify)} shards are whole: {args.verify}")
            return
        index = shard_corpus(
            args.corpus,
            args.data_folder,
            args.out,
            args.shard_size,
            args.utterances,
            seed=args.seed,
            workers=args.workers,
            sample_rate=args.sample_rate,
            **_options(args),
        )
    for split, facts in index["splits"].items():
        print(
            f"{split}: {facts['utterances']} utterances, {facts['seconds'] / 3600:.2f} "
            f"h, {facts['speakers']} speakers, {len(facts['shards'])} shards"
        )


if __name__ == "__main__":
    main()
