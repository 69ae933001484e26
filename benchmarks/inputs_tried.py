"""Audio as it comes: what a training and an extraction make of bad and odd files.

    python benchmarks/inputs_tried.py

Makes a folder of recordings of which most are wrong in some way, prepares it as
train.py does, extracts features of it as ``speechbrain-vae extract`` does, and writes
benchmarks/inputs_tried.md: what a file was, what became of it, the line that the user
saw, and whether every good recording beside it came through unchanged.
"""

import argparse
import json
import logging
import os
import re
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from markdown_table import table_row
from odd_audio import RATE, check_and_load, damaged, job, odd_files, sound, write

from speechbrain_vae.dataio.audio import load_entry
from speechbrain_vae.dataio.checks import check_file, check_files
from speechbrain_vae.dataio.manifests import (
    SPLITS,
    printable,
    read_kaldi_table,
    read_manifest,
)
from speechbrain_vae.dataio.prepare import prepare
from speechbrain_vae.export import write_export
from speechbrain_vae.extraction import extract

MODEL = """
features: !new:speechbrain_vae.lobes.features.LogMel
autoencoder: !new:speechbrain_vae.lobes.autoencoder.Autoencoder
    encoder: !new:speechbrain_vae.lobes.encoders.ConvEncoder {channels: 8, blocks: 1}
    bottleneck: !new:speechbrain_vae.lobes.bottlenecks.GaussianBottleneck
        input_size: 8
        latent_size: 4
    decoder: !new:speechbrain_vae.lobes.decoders.ConvDecoder
        input_size: 4
        channels: 8
        blocks: 1
    likelihood: !new:speechbrain_vae.nnet.likelihoods.GaussianLikelihood {size: 80}
"""

HEAD = """# Inputs tried

`python benchmarks/inputs_tried.py`: {number} files and folders, most of them wrong
in some way. The files of the first rows lie in one folder with eight good recordings;
it is prepared as `train.py` does it, and its features are extracted as
`speechbrain-vae extract` does it. *Nothing lost*: the good recordings came through
sample by sample, and what was left out is named; what was used has the length it had.

| what | what happened | the line the user saw | nothing lost |
|---|---|---|---|"""


class Lines(logging.Handler):
    """Keeps what a user reads."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def one_line(error):
    """An error as the command line shows it."""
    text = f"error: {error}"
    return text if "\n" not in text else f"NOT ONE LINE: {text!r}"


def file_rows(folder):
    """Rows of files that are wrong or odd, all in one folder with good ones."""
    data, save = folder / "data", folder / "save"
    good = {}
    for number in range(8):
        path = data / f"speaker{number // 2}" / f"{number}.wav"
        write(path, sound(2, seed=number))
        good[path] = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    files = odd_files(data)
    log = Lines()
    logging.getLogger("speechbrain_vae").addHandler(log)
    prepared = prepare("folder", data, save, workers=2)
    manifest = extract(export(folder), data, folder / "out", progress=False)
    logging.getLogger("speechbrain_vae").removeHandler(log)

    entries = {}
    for name in SPLITS:
        entries |= read_manifest(prepared.manifests[name])
    skipped = json.loads((save / "skipped.json").read_text())["skipped"]
    reasons = {item["wav"]: item["reason"] for item in skipped}
    extracted = {str(data / item["wav"]): item for item in manifest}
    unharmed = all(
        torch.equal(load_entry(entries[extracted[str(path)]["id"]]), wav)
        for path, wav in good.items()
    )
    rows = []
    for what, path in files.items():
        found = extracted.get(str(path))
        if found is None:
            rows.append((what, "no file to either command", "", unharmed))
            continue
        parts = [e for i, e in entries.items() if i.split("_00")[0] == found["id"]]
        reason = reasons.get(str(path), "")
        if not parts:
            named = bool(reason)
            happened = "skipped"
            if "frames" in found:
                happened += f" in training; {found['frames']} frames extracted"
        else:
            seconds = sum(len(load_entry(part)) for part in parts) / RATE
            whole = 3.0 if path.stem == "cut" else soundfile.info(path).duration
            named = bool(reason) or abs(seconds - whole) < 0.1
            happened = f"used, {seconds:.2f} s; {found.get('frames', 0)} frames"
        line = f"{printable(path.name)} ({reason})" if reason else ""
        rows.append((what, happened, line, unharmed and named))
    rows.append(
        (
            "the first line of the preparation's log",
            "",
            log.lines[0][:200] + "...",
            True,
        )
    )
    return rows


def folder_rows(folder):
    """Rows of folders and lists that cannot be used."""

    def tried(what, action):
        try:
            action()
        except (ValueError, OSError) as error:
            return what, "refused", one_line(error), True
        return what, "accepted", "", False

    empty, silent, notes = (folder / name for name in ("empty", "silent", "notes"))
    for place in (empty, silent, notes):
        place.mkdir()
    (notes / "notes.txt").write_text("no audio")
    for number in range(4):
        write(silent / f"s{number}" / "a.wav", np.zeros(RATE))
    for number in range(2):
        write(folder / "two" / f"s{number}" / "a.wav")
    table = folder / "wav.scp"
    table.write_text("a 1.wav\nb 2.wav\na 3.wav\n")
    model, out = export(folder), folder / "features"
    places = {
        "empty folder": empty,
        "missing folder": folder / "missing",
        "folder without audio": notes,
        "folder of silent files": silent,
        "file in place of a folder": notes / "notes.txt",
    }
    for what, place in places.items():
        yield tried(
            f"{what}, to train on", lambda p=place: prepare("folder", p, folder / "s")
        )
        if what == "folder of silent files":
            continue
        yield tried(
            f"{what}, to extract",
            lambda p=place: extract(model, p, out, progress=False),
        )
    yield tried(
        "two speakers for three splits",
        lambda: prepare("folder", folder / "two", folder / "s"),
    )
    yield tried("table that names an ID twice", lambda: read_kaldi_table(table))


def permission_row(folder):
    """A file that may not be read; root may read all, so somebody else tries."""
    path = folder / "secret.wav"
    write(path)
    path.chmod(0)
    folder.chmod(0o755)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        reason = check_file(job(path, folder)).reason or ""
        os.write(writer, reason.encode())
        os._exit(0)
    os.waitpid(child, 0)
    reason = os.read(reader, 1000).decode()
    happened, line = "skipped" if reason else "used", f"{path.name} ({reason})"
    return "file without permission to read", happened, line, bool(reason)


def fuzz_row(folder, name, number):
    """Damage the bytes of a good file in many ways; a row for all of them."""
    data = write(folder / f"good-{name}")
    jobs = []
    for seed in range(number):
        path = folder / f"{seed}-{name}"
        path.write_bytes(damaged(data, seed))
        jobs.append(job(path, folder))
    found = check_files(jobs, workers=2, check=check_and_load)
    reasons = Counter(re.split("[:(]", one.reason)[0] for one in found if one.reason)
    used = sum(one.reason is None for one in found)
    kept = not any(reason.isupper() for reason in reasons)
    lines = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common(4))
    happened = f"{number - used} skipped, {used} used"
    return f"{number} {path.suffix[1:]} files of damaged bytes", happened, lines, kept


def export(folder):
    """An export of a small untrained model."""
    torch.manual_seed(0)
    hparams = load_hyperpyyaml(MODEL)
    return write_export(
        folder / "export", MODEL, hparams["features"], hparams["autoencoder"]
    )


def main(seeds, output):
    """Try everything and write the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [*file_rows(folder), permission_row(folder), *folder_rows(folder)]
        for kind in ("wav", "flac", "mp3", "ogg"):
            rows.append(fuzz_row(folder / "fuzzed", f"a.{kind}", seeds))
        lines = [HEAD.format(number=len(rows) - 4 + 4 * seeds)]
        for what, happened, line, kept in rows:
            said = f"`{line}`" if line else ""
            cells = (what, happened, said, "yes" if kept else "NO")
            lines.append(table_row(cells, folder))
    Path(output).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=300, help="damaged files a format")
    parser.add_argument(
        "--output", default=Path(__file__).with_suffix(".md"), help="where to write"
    )
    arguments = parser.parse_args()
    main(arguments.seeds, arguments.output)
