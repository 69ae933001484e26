"""Turn a folder of a corpus into manifests that a training can trust.

Each corpus is a module of this package with a function ``splits``; everything else
is here: checking and converting the audio, cutting long files, writing the manifests
and knowing when all of that is done already.
"""

import hashlib
import importlib
import inspect
import json
import logging
import os
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from speechbrain_vae.kinds import check_kind

from .checks import Job, check_files
from .manifests import (
    GENERATED_MARKER,
    SPLITS,
    escape_braces,
    printable,
    safe_name,
    stable_hash,
    write_json,
)

logger = logging.getLogger(__name__)

CORPORA = (
    "folder",
    "fsdd",
    "librispeech",
    "mini_librispeech",
    "speechocean762",
    "synthetic",
    "timit",
    "voxceleb1",
)
"""Names of the corpora, each a module of ``speechbrain_vae.dataio``."""

_FORMAT = 1  # changes when old manifests must be written anew
_NAMED = 10
_STAMP = "prepare.json"


@dataclass
class Preparation:
    """What a preparation gave.

    Arguments
    ---------
    hours, entries, speakers, skipped : dict of str to number
        Of each split: hours of audio, manifest entries, speakers, files left out.
    manifests : dict of str to str
        Path of the manifest of each split.
    data_root : str
        What ``{data_root}`` stands for in the manifests.
    reused : bool
        Whether nothing had to be done.

    Example
    -------
    >>> Preparation({"train": 1.0}, {}, {}, {}, {}, "/data").reused
    False
    """

    hours: dict
    entries: dict
    speakers: dict
    skipped: dict
    manifests: dict
    data_root: str
    reused: bool = False


def prepare(
    corpus: str,
    data_folder: str | Path,
    save_folder: str | Path,
    seed: int = 1234,
    workers: int = 2,
    sample_rate: int = 16000,
    min_seconds: float = 0.1,
    max_seconds: float = 30.0,
    keep: bool = False,
    **options,
) -> Preparation:
    """Write ``train.json``, ``valid.json`` and ``test.json`` for a corpus.

    Every file is decoded once: what is missing, unreadable, empty, silent, too short
    or not finite is left out, named in the log and listed in ``skipped.json``. Audio
    of another rate or with several channels is written once more, as one channel at
    ``sample_rate``, in ``converted/``. A file longer than ``max_seconds`` becomes
    equal parts, entries ``id``, ``id_0001``, ...; one with a transcript stays whole,
    since nothing says where to cut the transcript.

    An entry has ``wav``, its samples ``start`` to ``stop`` (exclusive), ``duration``
    in seconds, ``spk_id`` and the labels of the corpus; all entries have the same
    keys. :func:`speechbrain_vae.dataio.audio.load_entry` loads its audio, and so does
    SpeechBrain's ``read_audio({"file": wav, "start": start, "stop": stop})``.

    A second call with the same arguments and an unchanged folder does nothing; one
    after an interruption does what is left.

    Arguments
    ---------
    corpus : str
        One of :data:`CORPORA`.
    data_folder : str or Path
        Folder of the corpus.
    save_folder : str or Path
        Where the manifests go; made if missing.
    seed : int
        Seed of the splits that the corpus does not define.
    workers : int
        Processes that decode.
    sample_rate : int
        Rate of the model in Hz.
    min_seconds : float
        Shorter audio is left out.
    max_seconds : float
        Length of the longest entry without a transcript.
    keep : bool
        Whether manifests that are there already must stay as they are, since models
        have been trained on them.
    **options
        Options of the corpus, see ``splits`` of its module.

    Returns
    -------
    Preparation
        Hours, entries, speakers and skipped files of each split.

    Raises
    ------
    ValueError, FileNotFoundError
        In one line: an unknown corpus or option, a folder of another layout, a split
        with nothing usable in it, other entries than those to keep.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> for name in "abc":
    ...     (folder / "data" / name).mkdir(parents=True)
    ...     noise = numpy.random.default_rng(0).normal(size=16000) / 10
    ...     soundfile.write(folder / "data" / name / "1.wav", noise, 16000)
    >>> result = prepare("folder", folder / "data", folder / "save", workers=1)
    >>> result.entries
    {'train': 1, 'valid': 1, 'test': 1}
    """
    save_folder = Path(os.path.abspath(os.path.expanduser(save_folder)))
    settings = {
        "corpus": corpus,
        "seed": seed,
        "sample_rate": sample_rate,
        "min_seconds": min_seconds,
        "max_seconds": max_seconds,
    }
    splits, arguments = _plan(data_folder, save_folder, options, settings)
    stamp_path = save_folder / _STAMP
    done, why = _read_stamp(stamp_path, arguments, save_folder)
    if done is not None:
        logger.info("%s is prepared in %s", corpus, printable(save_folder))
        return done
    logger.info("Preparing %s in %s: %s", corpus, printable(save_folder), why)

    jobs = _jobs(splits, save_folder, sample_rate, min_seconds, max_seconds)
    progress = partial(tqdm, total=len(jobs), desc=f"Checking {corpus}", unit="file")
    checked = dict(
        zip(jobs, check_files(list(jobs.values()), workers, progress), strict=True)
    )
    entries, skipped = _entries(splits, checked, sample_rate)
    module = _corpus_module(corpus)
    if hasattr(module, "assign"):
        entries = _reassign(module, entries, seed, options)
    _report(corpus, entries, skipped)
    _same_keys(entries)
    data_root = arguments["data_root"]
    manifests = {name: _relative(entries[name], data_root) for name in SPLITS}
    if keep:
        _refuse_changed(manifests, save_folder)
    stamp_path.unlink(missing_ok=True)
    write_json(save_folder / "skipped.json", {"skipped": skipped})
    _refuse_empty(corpus, options, entries, skipped, save_folder)

    result = _summary(entries, skipped, save_folder, data_root)
    for name, manifest in manifests.items():
        write_json(save_folder / f"{name}.json", manifest)
    outputs = {name: _file_digest(path) for name, path in result.manifests.items()}
    converted = sorted(
        {
            os.path.relpath(found.wav, save_folder)
            for wav, found in checked.items()
            if found.wav != wav
        }
    )
    write_json(
        stamp_path,
        {
            **arguments,
            "outputs": outputs,
            "converted": converted,
            "summary": asdict(result),
        },
    )
    return result


def what_changed(corpus, data_folder, save_folder, **arguments) -> str | None:
    """What keeps a preparation from being used again by a call of :func:`prepare`.

    Arguments
    ---------
    corpus, data_folder, save_folder, **arguments
        Those of the call.

    Returns
    -------
    str or None
        An argument that is another one, or "files" of the corpus; none where there is
        nothing else, or no whole preparation.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "a.wav").touch()
    >>> what_changed("folder", folder, folder / "save") is None
    True
    """
    try:
        stamp = json.loads(Path(save_folder, _STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    call = inspect.signature(prepare).bind(
        corpus, data_folder, save_folder, **arguments
    )
    call.apply_defaults()
    settings = dict(call.arguments)
    folders = settings.pop("data_folder"), settings.pop("save_folder")
    options = settings.pop("options")
    del settings["workers"], settings["keep"]
    _, arguments = _plan(*folders, options, settings)
    return _difference(stamp, arguments) if isinstance(stamp, dict) else None


def _plan(data_folder, save_folder, options, settings):
    """The entries of each split before their audio is seen, and what decides them."""
    module = _corpus_module(settings["corpus"])
    _check_arguments(module, options, settings)
    save_folder.mkdir(parents=True, exist_ok=True)
    splits = module.splits(data_folder, seed=settings["seed"], **options)
    return splits, {
        "format": _FORMAT,
        **settings,
        "data_root": os.path.abspath(os.path.expanduser(data_folder or save_folder)),
        "options": json.loads(json.dumps(options, default=str)),
        "files": _digest(splits),
    }


def _difference(stamp, arguments):
    """The first of the arguments that is another one in a stamp, or ``None``."""
    return next((k for k, value in arguments.items() if stamp.get(k) != value), None)


def _corpus_module(corpus):
    if corpus not in CORPORA:
        raise ValueError(f"unknown corpus {corpus!r}; known: {', '.join(CORPORA)}")
    return importlib.import_module(f".{corpus}", __package__)


def _check_arguments(module, options, settings):
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(module.splits).parameters.items()
        if name not in ("data_folder", "seed")
    }
    lengths = {name: settings[name] for name in ("min_seconds", "max_seconds")}
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"the corpus {settings['corpus']} has no option {name!r}; its options: "
                f"{', '.join([*known, *lengths])}"
            )
        check_kind(name, value, known[name])
    for name, value in lengths.items():
        check_kind(name, value, default=1.0)
    sample_rate = settings["sample_rate"]
    if not isinstance(sample_rate, int) or sample_rate <= 0:
        raise ValueError(f"sample_rate is a whole number of Hz, got {sample_rate!r}")
    least, most = lengths.values()
    if not 0 <= least < most:
        raise ValueError(
            "min_seconds must be at least 0 and less than max_seconds, got "
            f"{least} and {most}"
        )


def _digest(splits):
    """Hash of the entries and of the size and date of their files."""
    digest = hashlib.sha256(json.dumps(splits, sort_keys=True).encode())
    for name in SPLITS:
        for utt in sorted(splits[name]):
            try:
                status = os.stat(splits[name][utt]["wav"])
                line = f"{utt} {status.st_size} {status.st_mtime_ns} {status.st_mode}\n"
            except OSError:
                line = f"{utt} missing\n"
            digest.update(line.encode())
    return digest.hexdigest()


def _file_digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def _read_stamp(path, arguments, save_folder):
    """The finished preparation if it still holds, else ``None`` and the reason."""
    try:
        stamp = json.loads(path.read_text(encoding="utf-8"))
        summary = Preparation(**{**stamp["summary"], "reused": True})
        outputs, converted = stamp["outputs"], stamp["converted"]
    except FileNotFoundError:
        return None, "not prepared yet"
    except (ValueError, KeyError, TypeError):
        return None, "prepare.json is not readable"
    if name := _difference(stamp, arguments):
        what = "the files of the corpus" if name == "files" else name
        return None, f"{what} changed"
    for name in SPLITS:
        manifest = save_folder / f"{name}.json"
        if not manifest.is_file() or _file_digest(manifest) != outputs.get(name):
            return None, f"{name}.json is missing or was edited"
    for relative in converted:
        if not (save_folder / relative).is_file():
            return None, f"{relative} is missing"
    # The folder may have been moved since.
    summary.manifests = {name: str(save_folder / f"{name}.json") for name in SPLITS}
    return summary, ""


def _jobs(splits, save_folder, sample_rate, min_seconds, max_seconds):
    """A job for each file, by its path."""
    folder = save_folder / "converted"
    folder.mkdir(exist_ok=True)
    (folder / GENERATED_MARKER).touch()
    for unfinished in folder.glob("*.tmp"):
        unfinished.unlink(missing_ok=True)
    jobs = {}
    for name in SPLITS:
        for utt, entry in splits[name].items():
            wav = entry["wav"]
            try:
                status = os.stat(wav)
                version = f"{wav}|{status.st_size}|{status.st_mtime_ns}|{sample_rate}"
            except OSError:
                version = wav
            stem = folder / f"{safe_name(utt)}-{stable_hash(version)[:12]}"
            longest = None if "words" in entry or "phones" in entry else max_seconds
            jobs[wav] = Job(wav, str(stem), sample_rate, min_seconds, longest)
    return jobs


def _entries(splits, checked, sample_rate):
    """Entries of the usable audio, and a list of what was left out."""
    entries = {name: {} for name in SPLITS}
    skipped = []
    taken = {utt for name in SPLITS for utt in splits[name]}
    for name in SPLITS:
        for utt, entry in splits[name].items():
            found = checked[entry["wav"]]
            skip = {"split": name, "id": utt, "wav": entry["wav"]}
            if found.reason:
                skipped.append({**skip, "reason": found.reason})
                continue
            if found.silent_parts:
                reason = f"{found.silent_parts} silent parts of a long file"
                skipped.append({**skip, "reason": reason, "partly": True})
            for index, (start, stop) in enumerate(found.parts):
                part = utt
                if index:
                    part = f"{utt}_{index:04d}"
                    while part in taken:
                        part += "_"
                    taken.add(part)
                entries[name][part] = {
                    **entry,
                    "wav": found.wav,
                    "start": start,
                    "stop": stop,
                    "duration": (stop - start) / sample_rate,
                    "source": entry["wav"],
                }
    return entries, skipped


def _reassign(module, entries, seed, options):
    """Let a corpus without official splits divide what turned out usable."""
    usable = {utt: entry for name in SPLITS for utt, entry in entries[name].items()}
    if not usable:
        return entries
    names = module.assign(usable, seed=seed, **options)
    result = {name: {} for name in SPLITS}
    for utt in sorted(usable):
        result[names[utt]][utt] = usable[utt]
    return result


def _report(corpus, entries, skipped):
    for name in SPLITS:
        kept = entries[name].values()
        hours = sum(entry["duration"] for entry in kept) / 3600
        speakers = len({entry["spk_id"] for entry in kept})
        text = f"{corpus} {name}: {len(kept)} entries, {hours:.2f} h, {speakers} spk_id"
        lost = [item for item in skipped if item["split"] == name]
        if not lost:
            logger.info("%s", text)
            continue
        named = ", ".join(
            f"{printable(os.path.basename(item['wav']))} ({item['reason']})"
            for item in lost[:_NAMED]
        )
        more = len(lost) - _NAMED
        named += f" and {more} more, all in skipped.json" if more > 0 else ""
        logger.warning("%s; skipped %d: %s", text, len(lost), named)


def _refuse_empty(corpus, options, entries, skipped, save_folder):
    for name in SPLITS:
        unwanted = options.get(f"{name}_fraction") == 0 or options.get(name) in ((), [])
        if entries[name] or (unwanted and name != "train"):
            continue
        reasons = Counter(item["reason"].split(":")[0] for item in skipped)
        why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise ValueError(
            f"{corpus}: the {name} split has no usable audio; "
            + (
                f"left out in all splits: {why}"
                if why
                else "the folder holds none of its files"
            )
            + f" (see {printable(save_folder / 'skipped.json')})"
        )


def _refuse_changed(manifests, save_folder):
    """Refuse other entries than those of the manifests that are there, and whole."""
    before = _whole_manifests(save_folder)
    now = json.loads(json.dumps({name: manifests[name] for name in before}))
    before, now = _by_id(before), _by_id(now)
    for utt in sorted(before.keys() | now.keys()):
        (old, entry), (new, other) = (part.get(utt, ("", {})) for part in (before, now))
        if (old, entry) == (new, other):
            continue
        if not old:
            what = "is new"
        elif not new:
            what = "is missing"
        elif old != new:
            what = f"of the {old} set would be in the {new} set"
        else:
            what = "is another recording, or has other labels"
        raise ValueError(
            f"the corpus has changed since {printable(save_folder.parent)} was trained "
            f"on it: {printable(utt)} {what}; make it what it was, or choose another "
            "--output_folder"
        )


def _whole_manifests(save_folder):
    """The manifests that are as a finished preparation left them."""
    try:
        text = (save_folder / _STAMP).read_text(encoding="utf-8")
        digests = json.loads(text)["outputs"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    paths = {name: save_folder / f"{name}.json" for name in SPLITS}
    return {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name, path in paths.items()
        if path.is_file() and _file_digest(path) == digests.get(name)
    }


def _by_id(manifests):
    """Split and entry of each ID; where its audio lies may be another place."""
    return {
        utt: (name, {key: entry[key] for key in entry.keys() - {"wav"}})
        for name, manifest in manifests.items()
        for utt, entry in manifest.items()
    }


def _same_keys(entries):
    """SpeechBrain takes the keys of the first entry for those of all: make it so."""
    everything = [entry for name in SPLITS for entry in entries[name].values()]
    count = Counter(key for entry in everything for key in entry)
    partial_keys = sorted(key for key, n in count.items() if n < len(everything))
    if partial_keys:
        logger.warning("Only some entries have %s: left out", ", ".join(partial_keys))
    for entry in everything:
        for key in (*partial_keys, "source"):
            entry.pop(key, None)


def _relative(entries, data_root):
    """Entries as they are written: audio below the data folder by ``{data_root}``."""
    result = {}
    for utt, entry in entries.items():
        entry = escape_braces(entry)
        prefix = escape_braces(os.path.join(data_root, ""))
        if entry["wav"].startswith(prefix):
            below = entry["wav"][len(prefix) :].replace(os.sep, "/")
            entry["wav"] = "{data_root}/" + below
        result[utt] = entry
    return result


def _summary(entries, skipped, save_folder, data_root):
    def each(value):
        return {name: value(name) for name in SPLITS}

    return Preparation(
        hours=each(lambda n: sum(e["duration"] for e in entries[n].values()) / 3600),
        entries=each(lambda n: len(entries[n])),
        speakers=each(lambda n: len({e["spk_id"] for e in entries[n].values()})),
        skipped=each(
            lambda n: sum(s["split"] == n and "partly" not in s for s in skipped)
        ),
        manifests=each(lambda n: str(save_folder / f"{n}.json")),
        data_root=data_root,
    )
