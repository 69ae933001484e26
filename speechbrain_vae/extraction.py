"""Features or tokens of a folder of audio, in a folder of files."""

import contextlib
import json
import logging
import os
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from speechbrain_vae.dataio.audio import AudioError
from speechbrain_vae.dataio.manifests import (
    AUDIO_FORMATS,
    audio_files,
    printable,
    replacing,
    safe_ids,
    write_json,
)
from speechbrain_vae.export import LOADABLES
from speechbrain_vae.feature_writers import WRITERS
from speechbrain_vae.inference.features import FeatureEncoder
from speechbrain_vae.output_folder import refuse_others
from speechbrain_vae.run_lock import run_lock

logger = logging.getLogger(__name__)

SETTINGS = "extraction.json"
MANIFEST = "manifest.jsonl"


def extract(
    source: str,
    folder: str | Path,
    out: str | Path,
    kind: str = "npy",
    device: str = "cpu",
    trust_code: bool = False,
    progress: bool = True,
) -> list[dict]:
    """Encode every audio file below a folder.

    Given again, it keeps what is there, and encodes what is new, has changed or was
    skipped or lost; features of files that are gone go. What cannot be decoded is named
    in the manifest and in the log, and left out.

    Arguments
    ---------
    source : str
        An export folder, or a repository ID on the Hugging Face Hub.
    folder : str or Path
        A tree of WAV, FLAC, Ogg, Opus and MP3 files.
    out : str or Path
        Where to. ``manifest.jsonl`` has a line for each file, in order: ``id``,
        ``wav``, its ``size`` and ``mtime_ns``, and ``frames`` with what the format
        adds, or ``skipped``. ``extraction.json`` says by which model, of which folder.
    kind : str
        "npy", "hdf5", "kaldi" or "tokens".
    device : str
        Where the model runs.
    trust_code : bool
        As for :func:`speechbrain_vae.export.read_export`.
    progress : bool
        Whether a bar is drawn.

    Returns
    -------
    list of dict
        The manifest.

    Raises
    ------
    ValueError
        No audio, another extraction or something else in ``out``, tokens of a
        continuous model, or no such device.
    OSError
        ``out`` cannot be written; the same call goes on once it can.

    Example
    -------
    >>> import numpy, soundfile
    >>> folder = getfixture("tmp_path")
    >>> soundfile.write(folder / "a.wav", numpy.ones(16000), 16000)
    >>> export, out = getfixture("tiny_export"), folder / "features"
    >>> manifest = extract(export, folder, out, progress=False)
    >>> manifest[0]["id"], manifest[0]["frames"], manifest[0]["file"]
    ('a', 51, 'a.npy')
    """
    if kind not in WRITERS:
        raise ValueError(f"format must be one of {', '.join(WRITERS)}; got {kind!r}")
    if not os.fspath(out):
        raise ValueError("give a folder to write to; . is the one you are in")
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give one with audio files")
    if not (out / SETTINGS).exists():
        refuse_others(out, "extraction", ours=rf"{re.escape(SETTINGS)}\..*\.tmp")
    # What is in there already is no recording of the corpus.
    root, place = Path(os.path.abspath(folder)), Path(os.path.abspath(out))
    files = audio_files(folder, name_unread=True)
    if root in place.parents:
        files = [pair for pair in files if place not in Path(pair[0]).parents]
    if not files:
        raise ValueError(f"there is no audio below {folder}: no {AUDIO_FORMATS}")
    encoder = FeatureEncoder.from_hparams(
        source, run_opts={"device": device}, trust_code=trust_code
    )
    if kind == "tokens":
        _check_tokens(encoder, source)
    writer = WRITERS[kind](out)
    with run_lock(out), _named(out):
        check_settings(out, settings_of(encoder, kind, folder))
        wanted = _wanted(files)
        before = {entry["wav"]: entry for entry in read_manifest(out)}
        done = {wav: e for wav, e in before.items() if _is_current(e, wanted.get(wav))}
        stored = writer.stored({entry["id"]: entry for entry in done.values()})
        done = {wav: entry for wav, entry in done.items() if entry["id"] in stored}
        # First the manifest: what it does not name is not there.
        write_manifest(out, done.values())
        writer.resume(
            {entry["id"]: entry for entry in done.values()},
            {entry["id"] for wav, entry in before.items() if wav not in done},
        )
        waiting = [pair for pair in files if pair[1] not in done]
        with open(out / MANIFEST, "a", encoding="utf-8") as lines:
            bar = tqdm(waiting, unit="file", disable=not progress, dynamic_ncols=True)
            for path, relative in bar:
                entry = wanted[relative]
                entry |= _extract_one(encoder, path, writer, entry["id"], kind)
                lines.write(json.dumps(entry) + "\n")
                lines.flush()
                done[relative] = entry
        manifest = [done[relative] for _, relative in files]
        write_manifest(out, manifest)
    skipped = [entry for entry in manifest if "skipped" in entry]
    for entry in skipped[:10]:
        logger.warning("Skipped %s: %s", printable(entry["wav"]), entry["skipped"])
    if len(skipped) == len(manifest):
        raise ValueError(
            f"none of the {len(files)} files below {folder} can be used, "
            f"{skipped[0]['wav']} for example: {skipped[0]['skipped']}"
        )
    return manifest


def _wanted(files):
    """What the manifest says of each file, before it is encoded."""
    ids = safe_ids(relative for _, relative in files)
    return {
        relative: {"id": ids[relative], "wav": relative, **_state(path)}
        for path, relative in files
    }


def _state(path):
    try:
        status = os.stat(path)
    except OSError:
        return {"size": None, "mtime_ns": None}
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _is_current(entry, wanted):
    return "frames" in entry and wanted is not None and wanted.items() <= entry.items()


def _extract_one(encoder, path, writer, utt, kind):
    try:
        with _named(tempfile.gettempdir()):
            pieces = list(encoder.stream_file(path))
    except AudioError as error:
        return {"skipped": error.reason}
    array = torch.cat([p[kind == "tokens"] for p in pieces]).cpu().numpy()
    if kind == "tokens":
        # Digital silence at the end is padding, which has no code.
        array = array[(array >= 0).all(1)]
    elif not np.isfinite(array).all():
        return {"skipped": "the model makes features of it that are not finite"}
    return {"frames": len(array), **writer.write(utt, array)}


@contextlib.contextmanager
def _named(folder):
    """Name the folder in errors of the disk that name no file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(folder)
        raise


def _check_tokens(encoder, source):
    try:
        encoder.tokens_batch(torch.zeros(1, encoder.sample_rate))
    except ValueError as error:
        raise ValueError(
            f"{source} is continuous and has no tokens; give the format npy, hdf5 or "
            "kaldi, or a model with a quantiser"
        ) from error


def settings_of(encoder, kind: str, folder: str | Path) -> dict:
    """What makes two extractions of one kind.

    Arguments
    ---------
    encoder : speechbrain_vae.inference.FeatureEncoder
    kind : str
        The format.
    folder : str or Path
        Of the audio.

    Returns
    -------
    dict
    """
    return {
        "format": kind,
        "folder": os.path.realpath(folder),
        "feature_size": encoder.feature_size,
        "frame_shift": encoder.frame_shift,
        "sample_rate": encoder.sample_rate,
        "weights": {name: encoder.checksums.get(name, "unknown") for name in LOADABLES},
    }


def check_settings(out, settings):
    """Begin an extraction, or go on with one of the same settings.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> check_settings(folder, {"format": "npy"})
    >>> check_settings(folder, {"format": "hdf5"})
    Traceback (most recent call last):
      ...
    ValueError: ... holds an extraction with another format (npy, now hdf5); ...
    """
    path = Path(out) / SETTINGS
    if path.exists():
        before = _read_settings(path)
        for name, value in settings.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{out} holds an extraction with another {name} "
                    f"({before.get(name)}, now {value}); give another --out, or remove "
                    "it to extract anew"
                )
        return
    write_json(path, settings)


def _read_settings(path):
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is damaged; remove {path.parent} to extract anew")
    return settings


def write_manifest(out, entries):
    """Write a line for each entry, all of them or none.

    Example
    -------
    >>> write_manifest(getfixture("tmp_path"), [{"id": "a", "wav": "a.wav"}])
    >>> read_manifest(getfixture("tmp_path"))
    [{'id': 'a', 'wav': 'a.wav'}]
    """
    with replacing(Path(out) / MANIFEST) as file:
        file.writelines(json.dumps(entry) + "\n" for entry in entries)


def read_manifest(out):
    """The lines of a manifest that were written wholly, by :func:`extract`.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / MANIFEST).write_text('{"id": "a", "wav": "a.wav"}\\n{"id": "b')
    >>> read_manifest(folder)
    [{'id': 'a', 'wav': 'a.wav'}]
    """
    path = Path(out) / MANIFEST
    entries = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with contextlib.suppress(ValueError, RecursionError):
                entries.append(json.loads(line))
    return [entry for entry in entries if _is_entry(entry)]


def _is_entry(entry):
    # IDs are names of files, to be removed where they are out of date: of this folder.
    return (
        isinstance(entry, dict)
        and all(isinstance(entry.get(name), str) for name in ("id", "wav"))
        and re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", entry["id"]) is not None
        and all(_is_size(entry.get(name, 0)) for name in ("frames", "bytes", "end"))
    )


def _is_size(value):
    return isinstance(value, int) and value >= 0
