"""What can go wrong around a training and a model: done for real, one after another.

    python benchmarks/faults.py

Trains a small VAE on recordings made here, hurts it in many ways, gives the same
command again, and writes benchmarks/faults.md: what was done, what happened, the one
line that the user saw, and whether anything was lost: the weights must end as those of
a run that nobody disturbed. A full disk and a read-only one are file systems in memory,
for which one must be root; elsewhere a limit on the size of files stands for the first.
"""

import argparse
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import kaldiio
import numpy as np
import soundfile
import torch
from laboratory import ENVIRONMENT, ROOT, Laboratory, cut, last_line, memory_disk
from odd_audio import write

from speechbrain_vae.extraction import read_manifest

sys.path.insert(0, str(ROOT))
from tests.hub_server import TOKEN, HubServer  # noqa: E402

HOSTILE = {
    "!apply:": "!apply:os.system ['touch {marker}']",
    "!new: of another class": "!new:subprocess.Popen [[touch, {marker}]]",
    "!name: of a function": "!new:torch.nn.Sequential [!name:os.system [x]]",
    "!module:": "!module:antigravity",
    "!include:": "!include:/etc/passwd",
    "!!python/ in a tuple": "(!!python/object/apply:os.system ['touch {marker}'],)",
    "an alias that contains itself": "&x [*x]",
    "a model that names another": (
        "!new:speechbrain_vae.lobes.frozen.FrozenEncoder [evil/model]"
    ),
    "a billion layers": (
        "!new:speechbrain_vae.lobes.encoders.RecurrentEncoder {{num_layers: 999999999}}"
    ),
}


def warnings_of(log, words):
    """The first line of a log with these words."""
    for line in log.read_text().splitlines():
        if words in line:
            return line.split(" - ")[-1]
    return ""


def kills(lab, number):
    """Kill a run again and again, at moments that nobody chose."""
    moments = random.Random(0)
    for _ in range(number):
        process = lab.start("killed")
        time.sleep(moments.uniform(0.3, 1) * lab.seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    lab.again("killed", f"kill -9 at {number} random moments of one run", "")
    # What is started in the background of a shell does not hear it otherwise.
    process = lab.start("stopped", lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    while not list((lab.folder / "stopped" / "save").glob("CKPT*")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    end = "ended; " if process.returncode == 130 else "NOT INTERRUPTED; "
    lab.again("stopped", "Ctrl-C after a checkpoint", last_line(said), end)


def damaged_checkpoints(lab):
    """Cut the newest checkpoint, then all of them."""
    newest = lab.copy("newest")[-1]
    cut(newest / "autoencoder.ckpt")
    (lab.folder / "newest" / "log.txt").unlink(missing_ok=True)
    lab.again("newest", "the newest checkpoint cut in half", "")
    line = warnings_of(lab.folder / "newest" / "log.txt", "is damaged")
    line = line.replace(str(lab.folder), "...")
    lab.rows[-1] = lab.rows[-1].replace("|  |", f"| `{line}` |")
    for checkpoint in lab.copy("all"):
        cut(checkpoint / "autoencoder.ckpt")
    error = lab.train("all")
    kept = not (lab.folder / "all" / "export").exists()
    happened = "ended, without a new start in silence"
    lab.row("every checkpoint cut in half", happened, error, kept)


def full_disk(lab):
    """No room for a second checkpoint; then there is room."""
    size = sum(f.stat().st_size for f in lab.copy("sized")[-1].iterdir())
    with memory_disk(lab.folder / "disk", f"{int(1.6 * size) // 1024}k") as remount:
        if remount is None:
            what, limit = "files of a limited size", (size // 3, size // 3)
            error = lab.train(
                "disk",
                lambda: (
                    signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
                    resource.setrlimit(resource.RLIMIT_FSIZE, limit),
                ),
            )
        else:
            what = "the disk full while a checkpoint is saved"
            error = lab.train("disk")
            remount("size=64m")
        lab.again("disk", what, error, "ended; room made and ")


def read_only(lab):
    """An output folder that cannot be written."""
    with memory_disk(lab.folder / "sealed", "4m") as remount:
        if remount is not None:
            remount("ro")
            error = lab.train("sealed")
            lab.row("read-only output folder", "ended at the start", error, True)


def two_runs(lab):
    """A second run in the folder of one that is under way."""
    first = lab.start("shared")
    while not (lab.folder / "shared" / "run.lock").exists():
        time.sleep(0.05)
    error = lab.train("shared")
    first.communicate()
    happened = "the second refused, the first ended with the same weights"
    lab.row("two runs in one folder", happened, error, lab.same("shared"))


def other_settings(lab):
    """Settings of another run, in a folder that holds one."""
    lab.copy("other")
    settings = lab.folder / "other" / "hyperparams.yaml"
    before = settings.read_bytes()
    error = lab.train("other", beta=8)
    kept = error is not None and settings.read_bytes() == before
    lab.row("other settings in the folder of a run", "refused", error, kept)


def new_recording(lab):
    """A recording more in the corpus of a run that is under way."""
    lab.copy("grown")
    path = lab.corpus / "s0" / "more.wav"
    write(path, soundfile.read(lab.corpus / "s0" / "0.wav")[0])
    error = lab.train("grown")
    path.unlink()
    happened = "a recording more in the corpus of a run"
    lab.again("grown", happened, error, "refused; taken away and ")


def cut_cache(lab):
    """Cut what the feature cache says of its files, and then the files."""
    for kind in ("json", "f32"):
        for path in (lab.folder / "cache").glob(f"*.{kind}"):
            cut(path)
        lab.again(f"cache-{kind}", f"the feature cache cut in half (.{kind})", "")


def broken_numbers(lab):
    """A learning rate that ruins the weights, and audio that became NaN later."""
    error = lab.train("steep", lr=1e30, linear_start=False)
    lab.row("a learning rate of 1e30: NaN in the loss", "ended", error, True)
    corpus, lab.corpus = lab.corpus, lab.folder / "changed"
    for path in corpus.rglob("*.wav"):
        target = lab.corpus / path.relative_to(corpus)
        write(target, soundfile.read(path)[0], subtype="FLOAT")
    lab.train("nan", number_of_epochs=1)
    before = target.stat()
    with open(target, "r+b") as file:
        file.seek(-400, os.SEEK_END)
        file.write(struct.pack("<f", float("nan")))
    os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    shutil.rmtree(lab.folder / "cache")
    error = lab.train("nan", number_of_epochs=2)
    lab.row("NaN in a recording, after it was prepared", "ended", error, True)
    lab.corpus = corpus


def models(lab):
    """Exports that were cut or changed, or that hold code."""
    export = lab.folder / "calm" / "export"
    marker = lab.folder / "executed"

    def loaded(what, change):
        copy = lab.folder / "export"
        shutil.copytree(export, copy)
        change(copy)
        command = [sys.executable, "-m", "speechbrain_vae.cli", "info", copy]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        refused = done.returncode != 0 and not marker.exists()
        happened = "refused, nothing ran" if refused else "LOADED"
        lab.row(what, happened, last_line(done.stderr), refused)
        shutil.rmtree(copy)

    def flip(copy):
        path = copy / "autoencoder.safetensors"
        data = bytearray(path.read_bytes())
        data[-3] ^= 1
        path.write_bytes(data)

    def pickled(copy):
        torch.save(print, copy / "autoencoder.safetensors")

    loaded("weights of an export, one bit changed", flip)
    loaded("weights cut", lambda copy: cut(copy / "autoencoder.safetensors"))
    loaded("weights missing", lambda copy: (copy / "features.safetensors").unlink())
    loaded("a pickle in place of the weights", pickled)
    for what, text in HOSTILE.items():
        text = text.format(marker=marker)

        def hide(copy, text=text):
            with open(copy / "hyperparams.yaml", "a") as file:
                file.write(f"extra: {text}\n")

        loaded(f"YAML of an export with {what}", hide)


def download(lab):
    """A download that breaks off in the middle."""
    with HubServer() as hub:
        environment = {
            **ENVIRONMENT,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(lab.folder / "hf"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }

        def client(*arguments):
            command = [sys.executable, "-m", "speechbrain_vae.hub", *arguments]
            return subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True
            )

        export, pulled = lab.folder / "calm" / "export", lab.folder / "pulled"
        client("push", export, "ann/model", "--license", "mit")
        hub.cut.add("autoencoder.safetensors")
        done = client("pull", "ann/model", pulled)
        name = "autoencoder.safetensors"
        kept = done.returncode == 0 and not hub.cut
        kept = kept and (pulled / name).read_bytes() == (export / name).read_bytes()
        happened = "fetched again by itself, and whole"
        lab.row("a download that breaks off", happened, "", kept)
    done = client("pull", "ann/model", lab.folder / "late")
    lab.row("no server", "ended", last_line(done.stderr), done.returncode != 0)


def features_of(out, kind):
    """The features of an extraction by ID, read as a user does."""
    ids = [entry["id"] for entry in read_manifest(out)]
    if kind == "npy":
        return {utt: np.load(out / f"{utt}.npy") for utt in ids}
    if kind == "kaldi":
        index = kaldiio.load_scp(str(out / "feats.scp"))
        return {utt: index[utt] for utt in ids}
    with h5py.File(out / "features.h5") as file:
        return {utt: file[utt][:] for utt in ids}


class Extraction:
    """An extraction of a longer corpus, and what became of it."""

    def __init__(self, lab, kind):
        self.lab, self.kind = lab, kind
        self.folder = lab.folder / "recordings"
        for path in lab.corpus.rglob("*.wav"):
            for copy in range(20):
                target = self.folder / f"{path.parent.name}-{path.stem}-{copy}.wav"
                target.parent.mkdir(exist_ok=True)
                if not target.exists():
                    shutil.copy(path, target)
        self.run(lab.folder / f"calm-{kind}")
        self.features = features_of(lab.folder / f"calm-{kind}", kind)

    def start(self, out):
        """Start it."""
        command = [sys.executable, "-m", "speechbrain_vae.cli", "extract"]
        command += [self.lab.folder / "calm" / "export", self.folder, "--out", out]
        return subprocess.Popen(
            [*command, "--format", self.kind],
            cwd=ROOT,
            env=ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, out):
        """Go on to the end; what it said last where it failed."""
        process = self.start(out)
        _, said = process.communicate()
        if process.returncode < 0:
            return f"KILLED by signal {-process.returncode}"
        return last_line(said) if process.returncode else None

    def again(self, out, what, line, settings=""):
        """Give the same command again, and note whether the features are the same."""
        error = self.run(out)
        found = {} if error else features_of(out, self.kind)
        same = found.keys() == self.features.keys() and all(
            np.array_equal(found[utt], self.features[utt]) for utt in found
        )
        end = "the same features" if same else f"other features ({error})"
        happened = f"{settings}the same command again: {end}"
        self.lab.row(f"{what}, {self.kind}", happened, line, same)


def killed_extraction(extraction, number):
    """Kill it again and again, at moments that nobody chose."""
    out = extraction.lab.folder / f"killed-{extraction.kind}"
    moments = random.Random(0)
    for _ in range(number):
        before = len(read_manifest(out))
        process = extraction.start(out)
        while len(read_manifest(out)) <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(moments.uniform(0, 0.3))
        process.kill()
        process.communicate()
    what = f"extraction: kill -9 at {number} random moments"
    extraction.again(out, what, "")


def full_disk_of_extraction(extraction):
    """Room for some of the features; then for all."""
    out = extraction.lab.folder / f"disk-{extraction.kind}"
    with memory_disk(out, "500k") as remount:
        if remount is not None:
            error = extraction.run(out)
            kept = len(read_manifest(out))
            remount("size=64m")
            settings = (
                f"ended, {kept} of {len(extraction.features)} kept; room made and "
            )
            extraction.again(out, "extraction: the disk full", error, settings)


def lost_features(extraction):
    """Half of what was written goes."""
    out = extraction.lab.folder / f"lost-{extraction.kind}"
    extraction.run(out)
    if extraction.kind == "npy":
        for path in sorted(out.glob("*.npy"))[::2]:
            cut(path)
    else:
        (out / {"hdf5": "features.h5", "kaldi": "feats.ark"}[extraction.kind]).unlink()
    extraction.again(out, "extraction: what was written cut or deleted", "")


def extractions(lab, number):
    """Killed, with a full disk, and with features that went."""
    for kind in ("npy", "hdf5", "kaldi"):
        extraction = Extraction(lab, kind)
        killed_extraction(extraction, number)
        full_disk_of_extraction(extraction)
        lost_features(extraction)


HEAD = """# Faults survived

`python benchmarks/faults.py`: each was done to a training of a small VAE in a process
of its own, to its export, or to an extraction of features with it. *The same weights*
and *the same features* are those of a run that nobody disturbed, bit by bit.

| what was done | what happened | the line the user saw | nothing lost |
|---|---|---|---|"""


def main(number, output):
    """Do everything and write the table."""
    with tempfile.TemporaryDirectory() as name:
        lab = Laboratory(Path(name))
        kills(lab, number)
        for fault in (
            *(damaged_checkpoints, full_disk, read_only, two_runs),
            *(other_settings, new_recording, cut_cache),
            *(broken_numbers, models, download),
        ):
            fault(lab)
        extractions(lab, number)
    Path(output).write_text("\n".join([HEAD, *lab.rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=5, help="kill -9 how often")
    parser.add_argument(
        "--output", default=Path(__file__).with_suffix(".md"), help="where to write"
    )
    arguments = parser.parse_args()
    main(arguments.kills, arguments.output)
