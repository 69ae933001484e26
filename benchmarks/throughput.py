#!/usr/bin/env python3
"""Hours of speech that an hour of computing prepares, trains on and encodes.

> python benchmarks/throughput.py --data_folder D --corpus speechocean762
> python benchmarks/throughput.py --quick --recipes vae vqvae

Without a data folder the recordings are noise. Where one thread does all the work the
clock is CPU time, which other work on the machine does not change; with more threads,
and on CUDA, it is the clock on the wall: run it on a quiet machine.
Writes throughput.json and throughput.md beside it, or where --out says.
"""

import argparse
import json
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import soundfile
import torch
from hyperpyyaml import load_hyperpyyaml
from machine import processor
from markdown_table import write_page
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import make_dataloader
from throughput_measures import (
    Trainer,
    cpu_seconds,
    measure_inference,
    measure_training,
    peak_mb,
)
from throughput_table import table

from speechbrain_vae.dataio.audio import load_entry
from speechbrain_vae.dataio.dataset import batch_sampler, feature_dataset
from speechbrain_vae.dataio.feature_cache import open_features
from speechbrain_vae.dataio.manifests import read_manifest, read_manifests
from speechbrain_vae.dataio.prepare import prepare
from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.export import write_export
from speechbrain_vae.inference import FeatureEncoder
from speechbrain_vae.inference.precision import PRECISIONS
from speechbrain_vae.lobes.features import LogMel
from speechbrain_vae.pretraining import (
    fast_cpu_steps,
    feature_statistics,
)

ROOT = Path(__file__).resolve().parents[1]
RECIPES = ("ae", "vae", "vqvae", "sfvq", "predictive_vae", "apc")
LONG_HOURS = 3


def make_noise(folder, hours):
    """Twelve speakers of noise that comes and goes."""
    rng = np.random.default_rng(0)
    for number in range(int(hours * 3600 / 4)):
        seconds = rng.uniform(2, 6)
        samples = rng.normal(size=int(16000 * seconds)) / 20
        samples *= 1 + np.sin(np.arange(len(samples)) / 16000 * rng.uniform(12, 30))
        path = folder / f"s{number % 12}" / f"{number}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples.clip(-1, 1), 16000)


def measure_corpus(args, work):
    """Preparation and features, in CPU time; both are the same for every model."""
    threads = 1
    torch.set_num_threads(threads)
    start = cpu_seconds()
    prepare(args.corpus, args.data_folder, work / "manifests", workers=1)
    prepared = cpu_seconds() - start
    manifests = read_manifests(work / "manifests")
    start = cpu_seconds()
    open_features(manifests["train"], LogMel(), work / "cache")
    cached = cpu_seconds() - start
    seconds = {
        split: sum(entry["duration"] for entry in entries.values())
        for split, entries in manifests.items()
    }
    everything = sum(seconds.values())
    return {
        "hours": everything / 3600,
        "files": sum(map(len, manifests.values())),
        "prepare_speed": everything / prepared,
        "features_speed": seconds["train"] / cached,
    }


def measure_model(name, device, threads, batches, work, quick):
    """All that is measured of one model, on one device.

    Batches are so many times those of the recipe; inference, which does not depend on
    them, is measured beside the recipe's own.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    budget = 2 if quick else 6
    text = (ROOT / "hparams" / f"{name}.yaml").read_text()
    hparams = load_hyperpyyaml(text, {"output_folder": str(work / name)})
    hparams["batch_seconds"] *= batches
    features, model = hparams["features"], hparams["autoencoder"]
    # Blocks start as the identity; a trained one is not.
    for parameter in model.parameters():
        parameter.data += 0.02 * torch.randn_like(parameter)
    entries = read_manifest(work / "manifests" / "train.json")
    seconds = (12 if quick else 40) * hparams["batch_seconds"]
    entries = first_seconds(entries, seconds)
    feats = open_features(entries, features, work / "cache")
    if features.needs_statistics:
        features.set_statistics(*feature_statistics(feats, entries))
    dataset = feature_dataset(entries, feats)
    options = (hparams["batch_seconds"], hparams["num_buckets"], hparams["seed"])
    loader = make_dataloader(
        dataset,
        batch_sampler=batch_sampler(dataset, *options),
        num_workers=hparams["num_workers"],
        persistent_workers=hparams["num_workers"] > 0,
        multiprocessing_context="fork" if hparams["num_workers"] else None,
        collate_fn=PaddedBatch,
    )
    row = {
        "model": name,
        "device": device,
        "threads": threads,
        "batches": batches,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    trainer = Trainer(hparams, device)
    with fast_cpu_steps():
        row |= measure_training(trainer, loader, features.frame_shift, threads, budget)
    row["peak_mb"] = peak_mb()
    if device != "cpu":
        row["cuda_mb"] = torch.cuda.max_memory_allocated() / 2**20
    if batches != 1:
        return row
    model.to("cpu").eval()
    features.to("cpu")
    export = write_export(work / f"{name}_export", text, features, model)
    test = read_manifest(work / "manifests" / "test.json")
    test = dict(list(test.items())[: 8 if quick else 16])
    wavs = torch.nn.utils.rnn.pad_sequence(
        [load_entry(entry) for entry in test.values()], batch_first=True
    )
    files = [(e["wav"], e["duration"]) for e in test.values() if e["start"] == 0]
    for precision in PRECISIONS:
        if precision == "int8" and device != "cpu":
            continue
        encoder = FeatureEncoder.from_hparams(
            str(export), run_opts={"device": device}, precision=precision
        )
        row[precision] = measure_inference(
            encoder, wavs, files, device, threads, budget / 6
        )
    return row


def first_seconds(entries, seconds):
    """Entries until they are so long together."""
    kept = {}
    for utt, entry in entries.items():
        kept[utt] = entry
        seconds -= entry["duration"]
        if seconds < 0:
            break
    return kept


def write_long(path, hours, entries):
    """A recording of so many hours: the speech of a corpus, over and over."""
    speech = torch.cat([load_entry(entry) for entry in entries.values()]).numpy()
    left = int(hours * 3600 * 16000)
    with soundfile.SoundFile(path, "w", 16000, 1, "PCM_16", format="RF64") as file:
        while left > 0:
            file.write(speech[:left])
            left -= len(speech[:left])


def stream_long(export, path):
    """Encode a file in pieces; peak memory, CPU seconds, and where the features are."""
    torch.set_num_threads(1)
    encoder = FeatureEncoder.from_hparams(str(export))
    before, frames = cpu_seconds(), 0
    with open(f"{path}.features", "wb") as out:
        for part, _ in encoder.stream_file(path):
            out.write(part.numpy().tobytes())
            frames += len(part)
    return {
        "peak_mb": peak_mb(),
        "seconds": cpu_seconds() - before,
        "frames": frames,
    }


def whole_difference(export, path):
    """Largest difference of the features in pieces from those of one piece."""
    torch.set_num_threads(1)
    encoder = FeatureEncoder.from_hparams(str(export))
    wav, _ = soundfile.read(path, dtype="float32")
    whole = encoder.encode_batch(torch.from_numpy(wav)[None])[0]
    pieces = np.fromfile(f"{path}.features", np.float32).reshape(-1, whole.shape[1])
    return float((whole - torch.from_numpy(pieces)).abs().max())


def measure_streaming(work, quick):
    """A long file against one of ten minutes: memory and features of the VAE."""
    entries = read_manifest(work / "manifests" / "test.json")
    hours = {"ten_minutes": 1 / 6, "long": LONG_HOURS / (6 if quick else 1)}
    result, export = {"hours": hours["long"]}, work / "vae_export"
    for name, length in hours.items():
        path = work / f"{name}.wav"
        write_long(path, length, entries)
        result[name] = apart(stream_long, export, path)
    result["largest_difference"] = {
        "ten_minutes": apart(whole_difference, export, work / "ten_minutes.wav")
    }
    if not quick and _free_gb() > 12:
        result["largest_difference"]["long"] = apart(
            whole_difference, export, work / "long.wav"
        )
    return result


def _free_gb():
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def apart(call, *arguments):
    """Call a function in a process of its own: peak memory is that of the process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def main():
    """Measure, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted(path.stem for path in (ROOT / "hparams").glob("*.yaml"))
    parser.add_argument("--recipes", nargs="+", choices=names, default=RECIPES)
    parser.add_argument("--corpus", default="folder")
    parser.add_argument("--data_folder")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument(
        "--batches",
        nargs="+",
        type=int,
        default=[1],
        help="times batch_seconds of the recipe, for training",
    )
    parser.add_argument("--quick", action="store_true", help="a minute; no claim")
    parser.add_argument("--out", default=Path(__file__).parent / "throughput")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, one_line_errors():
        work = Path(folder)
        if args.data_folder is None:
            make_noise(work / "noise", 0.1 if args.quick else 1)
            args.data_folder = work / "noise"
        results = {
            "torch": torch.__version__,
            "cpu": processor(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "corpus": measure_corpus(args, work),
            "models": [],
        }
        settings = [("cpu", threads) for threads in args.threads]
        if torch.cuda.is_available():
            settings.append(("cuda", 1))
            results["cuda"] = torch.cuda.get_device_name()
        for name in args.recipes:
            for (device, threads), batches in product(settings, args.batches):
                setting = name, device, threads, batches
                row = apart(measure_model, *setting, work, args.quick)
                results["models"].append(row)
                print(json.dumps(row), flush=True)
        if "vae" in args.recipes and 1 in args.batches:
            results["streaming"] = measure_streaming(work, args.quick)
    results["cpu_seconds"] = cpu_seconds()
    Path(f"{args.out}.json").write_text(json.dumps(results, indent=1) + "\n")
    write_page(f"{args.out}.md", table(results))
    print(table(results))


if __name__ == "__main__":
    main()
