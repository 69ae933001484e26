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

import soundfile
import torch
from laboratory import ENVIRONMENT, ROOT, Laboratory, cut, last_line, memory_disk
from odd_audio import write

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


HEAD = """# Faults survived

`python benchmarks/faults.py`: each was done to a training of a small VAE in a process
of its own, or to its export. *The same weights* are those of a run that nobody
disturbed, bit by bit.

| what was done | what happened | the line the user saw | nothing lost |
|---|---|---|---|"""


def main(number, output):
    """Do everything and write the table."""
    with tempfile.TemporaryDirectory() as name:
        lab = Laboratory(Path(name))
        kills(lab, number)
        for fault in (
            *(damaged_checkpoints, full_disk, read_only, two_runs),
            *(broken_numbers, models, download),
        ):
            fault(lab)
    Path(output).write_text("\n".join([HEAD, *lab.rows]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=5, help="kill -9 how often")
    parser.add_argument(
        "--output", default=Path(__file__).with_suffix(".md"), help="where to write"
    )
    arguments = parser.parse_args()
    main(arguments.kills, arguments.output)
