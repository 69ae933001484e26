"""The embedded default corpus: speech that eSpeak NG says, with exact phone times.

With no data and no network it lets every program of this package run: for smoke
tests, tutorials, and checks of a mechanism against phone times that are known. It
supports no claim about speech.

eSpeak NG comes with the PyPI package ``espeakng-loader``, which only the optional extra
``synthetic`` installs. It is GPL-3.0-or-later; this package neither depends on it nor
contains any of it, and loads it in worker processes alone.

The sentences come from a small grammar, the speakers from the variants of the
library with a pitch, a pitch range and a rate of their own; each utterance varies
them a little and has its own gain and a little noise. Silence is in no phone:
gaps between the times are silence, as in a forced alignment without pauses.

Authors
 * speechbrain-vae contributors 2026
"""

import contextlib
import importlib.util
import json
import os
import queue
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from speechbrain_vae.dataio.espeak import VARIANTS
from speechbrain_vae.dataio.manifests import GENERATED_MARKER, stable_hash, write_json

TABLE = "utterances.json"
STAMP = "complete.json"

_GENERATOR = 1
"""Changes when the same settings would give other audio."""


def splits(
    data_folder: str | Path,
    seed: int = 1234,
    speakers: int = 40,
    hours: float = 1.0,
    workers: int | None = None,
) -> dict:
    """Train, valid and test part of the corpus; generates what is not there yet.

    A tenth of the speakers is for validation and a tenth for the test, women and men in
    the proportion of the whole. The same seed gives the same bytes, with any number of
    workers. A generation that was interrupted goes on with the speakers that are not
    complete.

    Arguments
    ---------
    data_folder : str or Path
        Where the audio is, or will be: in it one folder for these settings, in that
        one a speaker, 16 kHz mono FLAC.
    seed : int
        Chooses speakers, sentences, voices and noise.
    speakers : int
        Number of speakers, 3 to 55.
    hours : float
        Length of the whole corpus.
    workers : int, optional
        Number of processes; by default one a core, up to 8.

    Returns
    -------
    dict
        ``{"train": {utterance: entry}, "valid": ..., "test": ...}`` where each entry
        has ``wav`` (absolute path), ``spk_id``, ``gender``, ``words``, ``phones``,
        ``phone_times`` and ``word_times`` (``[start, end, label]`` in seconds).

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> parts = splits(folder, speakers=3, hours=0.003, workers=1)
    >>> sorted(parts), {len(set(e["spk_id"] for e in p.values()))
    ...                 for p in parts.values()}
    (['test', 'train', 'valid'], {1})
    """
    settings = _settings(seed, speakers, hours)
    data_folder = Path(os.path.abspath(os.path.expanduser(data_folder)))
    root = data_folder / f"seed{seed}-speakers{speakers}-hours{hours:g}"
    variants = choose_speakers(speakers, seed)
    seconds = round(3600 * hours / speakers, 3)
    _refuse_foreign(data_folder)
    requests = [
        {
            "folder": str(root / variant.lower()),
            "variant": variant,
            "seconds": seconds,
            "seed": seed,
        }
        for part in variants.values()
        for variant in part
    ]
    missing = [request for request in requests if not _is_complete(request)]
    if missing:
        _require_extra()
        root.mkdir(parents=True, exist_ok=True)
        # The stamp says "complete": away with that of a folder that lost files.
        (root / STAMP).unlink(missing_ok=True)
        (data_folder / GENERATED_MARKER).touch()
        _generate(missing, workers or min(os.cpu_count() or 1, 8))
    if _read_json(root / STAMP) != settings:
        write_json(root / STAMP, settings)
    return {
        name: {
            utterance: entry
            for variant in sorted(part, key=str.lower)
            for utterance, entry in _entries(root, variant)
        }
        for name, part in variants.items()
    }


def choose_speakers(speakers: int, seed: int) -> dict:
    """Which variant speaks in which part.

    Arguments
    ---------
    speakers : int
        Number of speakers.
    seed : int
        Seed of the choice.

    Returns
    -------
    dict
        Lists of variants for ``train``, ``valid`` and ``test``.

    Example
    -------
    >>> {name: len(part) for name, part in choose_speakers(40, seed=1).items()}
    {'train': 32, 'valid': 4, 'test': 4}
    """
    rng = random.Random(int(stable_hash("speakers", seed), 16))
    spread = []
    for gender in ("f", "m"):
        group = [name for name in VARIANTS if VARIANTS[name] == gender]
        rng.shuffle(group)
        # At equal distances, so that any stretch of the order has its share.
        spread += [((i + 0.5) / len(group), name) for i, name in enumerate(group)]
    order = [name for _, name in sorted(spread)][:speakers]
    held_out = max(1, round(speakers / 10))
    return {
        "train": order[2 * held_out :],
        "valid": order[held_out : 2 * held_out],
        "test": order[:held_out],
    }


def _settings(seed, speakers, hours):
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise ValueError(f"seed must be an integer, got {seed!r}")
    if speakers not in range(3, len(VARIANTS) + 1):
        raise ValueError(
            f"speakers must be 3 to {len(VARIANTS)}, one for each voice; got {speakers}"
        )
    if not 0 < hours <= 1000:
        raise ValueError(f"hours must be above 0 and at most 1000, got {hours}")
    return {
        "generator": _GENERATOR,
        "seed": seed,
        "speakers": speakers,
        "hours": float(hours),
    }


def _refuse_foreign(folder):
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: give a folder to generate into")
    ours = not folder.exists() or (folder / GENERATED_MARKER).exists()
    if not ours and any(folder.iterdir()):
        raise FileExistsError(
            f"{folder} is not empty and holds no synthetic corpus: give a new one to "
            "generate into, or name the corpus of this one with --corpus"
        )


def _require_extra():
    if importlib.util.find_spec("espeakng_loader") is None:
        raise ModuleNotFoundError(
            "the synthetic corpus needs eSpeak NG: pip install "
            '"speechbrain-vae[synthetic]", or give your own audio with --data_folder'
        )


def _is_complete(request):
    """Whether a speaker is there as requested, every file with its size."""
    folder = Path(request["folder"])
    content = _read_json(folder / TABLE)
    if content is None:
        return False
    expected = {key: request[key] for key in ("variant", "seconds", "seed")}
    if content.get("settings") != expected:
        return False
    with contextlib.suppress(OSError):
        return all(
            (folder / f"{name}.flac").stat().st_size == entry["bytes"]
            for name, entry in content["utterances"].items()
        )
    return False


def _entries(root, variant):
    folder = root / variant.lower()
    for name, entry in _read_json(folder / TABLE)["utterances"].items():
        del entry["bytes"]
        yield (
            name,
            {
                "wav": str(folder / f"{name}.flac"),
                "spk_id": variant.lower(),
                "gender": VARIANTS[variant],
                **entry,
            },
        )


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _generate(requests, workers):
    waiting = queue.SimpleQueue()
    for request in requests:
        waiting.put(request)
    workers = min(workers, len(requests))
    processes = [_start_worker() for _ in range(workers)]
    try:
        with (
            tqdm(total=len(requests), desc="synthetic speech", unit="speaker") as bar,
            ThreadPoolExecutor(workers) as pool,
        ):
            served = [pool.submit(_serve, p, waiting, bar.update) for p in processes]
            try:
                for future in as_completed(served):
                    future.result()
            except BaseException:
                # The threads wait for their processes: these have to go first.
                for process in processes:
                    process.kill()
                raise
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.stdin.close()


def _start_worker():
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "speechbrain_vae.dataio.synthetic_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        text=True,
    )


def _serve(process, waiting, done):
    """Hand requests to one worker until none is left."""
    while True:
        try:
            request = waiting.get_nowait()
        except queue.Empty:
            return
        line = ""
        with contextlib.suppress(OSError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the worker process died"}
        if "error" in answer:
            raise RuntimeError(
                f"cannot generate speaker {request['variant']}: {answer['error']}"
            )
        done()
