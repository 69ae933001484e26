"""Features or tokens of a folder of audio, in a folder of files."""

import json
import logging
from pathlib import Path

import torch
from tqdm import tqdm

from speechbrain_vae.dataio.audio import AudioError
from speechbrain_vae.dataio.manifests import audio_files, safe_ids
from speechbrain_vae.export import LOADABLES
from speechbrain_vae.feature_writers import WRITERS
from speechbrain_vae.inference.features import FeatureEncoder
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

    What was extracted before an interruption is kept; what cannot be decoded is named
    in the manifest and in the log, and left out.

    Arguments
    ---------
    source : str
        An export folder, or a repository ID on the Hugging Face Hub.
    folder : str or Path
        A tree of WAV, FLAC, Ogg, Opus and MP3 files.
    out : str or Path
        Where to. ``manifest.jsonl`` has a line for each file, in order: ``id``,
        ``wav``, and ``frames`` with what the format adds, or ``skipped``.
        ``extraction.json`` says by which model.
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
        No audio, another extraction in ``out``, or tokens of a continuous model.

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
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}; give one with audio files")
    # What is in there already is no recording of the corpus.
    files = [f for f in audio_files(folder) if not Path(f[0]).is_relative_to(out)]
    if not files:
        raise ValueError(f"there is no audio below {folder}: no WAV, FLAC, Ogg or MP3")
    encoder = FeatureEncoder.from_hparams(
        source, run_opts={"device": device}, trust_code=trust_code
    )
    if kind == "tokens":
        encoder.tokens_batch(torch.zeros(1, encoder.sample_rate))
    writer = WRITERS[kind](out)
    with run_lock(out):
        check_settings(out, settings_of(encoder, kind))
        manifest = read_manifest(out)
        writer.resume({e["id"]: e for e in manifest if "frames" in e})
        done = {entry["wav"] for entry in manifest}
        ids = safe_ids(relative for _, relative in files)
        waiting = [pair for pair in files if pair[1] not in done]
        with open(out / MANIFEST, "w", encoding="utf-8") as lines:
            lines.writelines(json.dumps(entry) + "\n" for entry in manifest)
            lines.flush()
            bar = tqdm(waiting, unit="file", disable=not progress, dynamic_ncols=True)
            for path, relative in bar:
                entry = {"id": ids[relative], "wav": relative}
                entry |= _extract_one(encoder, path, writer, ids[relative], kind)
                lines.write(json.dumps(entry) + "\n")
                lines.flush()
                manifest.append(entry)
    skipped = [entry for entry in manifest if "skipped" in entry]
    for entry in skipped[:10]:
        logger.warning("Skipped %s: %s", entry["wav"], entry["skipped"])
    if len(skipped) == len(manifest):
        raise ValueError(
            f"none of the {len(files)} files below {folder} can be used, "
            f"{skipped[0]['wav']} for example: {skipped[0]['skipped']}"
        )
    return manifest


def _extract_one(encoder, path, writer, utt, kind):
    try:
        pieces = list(encoder.stream_file(path))
    except AudioError as error:
        return {"skipped": str(error)}
    array = torch.cat([p[kind == "tokens"] for p in pieces]).cpu().numpy()
    return {"frames": len(array), **writer.write(utt, array)}


def settings_of(encoder, kind: str) -> dict:
    """What makes two extractions of one kind.

    Arguments
    ---------
    encoder : speechbrain_vae.inference.FeatureEncoder
    kind : str
        The format.

    Returns
    -------
    dict
    """
    return {
        "format": kind,
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
        before = json.loads(path.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if before.get(name) != value:
                raise ValueError(
                    f"{out} holds an extraction with another {name} "
                    f"({before.get(name)}, now {value}); give another --out, or remove "
                    "it to extract anew"
                )
    path.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


def read_manifest(out):
    """The lines of a manifest that were written wholly.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / MANIFEST).write_text('{"id": "a"}\\n{"id": "b')
    >>> read_manifest(folder)
    [{'id': 'a'}]
    """
    path = Path(out) / MANIFEST
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
