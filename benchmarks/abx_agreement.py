"""Does our ABX agree with fastabx, on the same features and items?

    pip install fastabx    # in an environment of its own: it wants Python 3.12 or newer
    python benchmarks/abx_agreement.py --data_folder ../shared/data/speechocean762 \
        --fastabx_python other-environment/bin/python

Both read the same features and item file, and a Markdown table of the errors in
percent, within / across speakers, is printed. Both compare every triple, so that
nothing is left to the draw. Contexts by manner class are written into the item file as
the names of the neighbours. Validation speakers only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import torchaudio
from frames import DATA_FOLDER
from sklearn.cluster import KMeans

from speechbrain_vae.analysis.abx import abx_error
from speechbrain_vae.analysis.items import items_from_alignment, write_items
from speechbrain_vae.analysis.phones import manner
from speechbrain_vae.dataio import audio, speechocean762
from speechbrain_vae.lobes.features import LogMel

FRAME_SHIFT = 0.01
# fastabx puts the centre of frame i at (i + 1/2) frame shifts.
FIRST_FRAME = FRAME_SHIFT / 2
EVERYTHING = 10**9
# Runs in the other environment: torch and fastabx are all it has.
FASTABX = """
import json, sys, time
from fastabx import zerospeech_abx
item, root = sys.argv[1:]
result = {}
begin = time.process_time()
for speaker in ("within", "across"):
    result[speaker] = 100 * zerospeech_abx(
        item, root, max_size_group=None, max_x_across=None, speaker=speaker,
        frequency=100, device="cpu", progress=False,
    )
result["seconds"] = time.process_time() - begin
print(json.dumps(result))
"""


def features_of(entries):
    """Log-Mel, MFCC and quantised log-Mel of every utterance, by name."""
    log_mel = LogMel()
    mfcc = torchaudio.transforms.MFCC(
        16000, 13, melkwargs={"n_fft": 400, "hop_length": 160, "n_mels": 40}
    )
    result = {"log-Mel 80, CMVN": {}, "MFCC 39, CMVN": {}, "64 codewords": {}}
    for utt, entry in entries.items():
        wav = audio.load(entry["wav"])
        result["log-Mel 80, CMVN"][utt] = log_mel(wav[None])[0][0]
        static = mfcc(wav)
        delta = torchaudio.functional.compute_deltas(static)
        second = torchaudio.functional.compute_deltas(delta)
        frames = torch.cat([static, delta, second]).T
        result["MFCC 39, CMVN"][utt] = (frames - frames.mean(0)) / frames.std(0)
    log_mels = result["log-Mel 80, CMVN"]
    # Few codewords: many frames are equal, so ties are put to the test.
    kmeans = KMeans(64, n_init=1, random_state=0)
    kmeans.fit(torch.cat(list(log_mels.values()))[::10].double().numpy())
    codebook = torch.from_numpy(kmeans.cluster_centers_).float()
    for utt, frames in log_mels.items():
        result["64 codewords"][utt] = codebook[kmeans.predict(frames.double().numpy())]
    return result


def fastabx_error(python, features, items, folder):
    """What fastabx says of the same features and items."""
    write_items(folder / "test.item", items)
    root = folder / "features"
    root.mkdir(exist_ok=True)
    for utt, frames in features.items():
        torch.save(frames.clone(), root / f"{utt}.pt")
    command = [python, "-c", FASTABX, folder / "test.item", root]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(
            f"abx_agreement: fastabx failed under {python}: "
            f"{run.stderr.strip().splitlines()[-1:]}"
        )
    return json.loads(run.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_folder", default=DATA_FOLDER)
    parser.add_argument("--fastabx_python", default=sys.executable)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    entries = speechocean762.splits(arguments.data_folder)["valid"]
    speakers = {utt: entry["spk_id"] for utt, entry in entries.items()}
    times = {utt: entry["phone_times"] for utt, entry in entries.items()}
    items = items_from_alignment(times, speakers)
    by_manner = [
        item._replace(previous=manner(item.previous), following=manner(item.following))
        for item in items
    ]
    print("| features | context | triples | ours | fastabx | difference | CPU s |")
    print("|---|---|---|---|---|---|---|")
    for name, features in features_of(entries).items():
        for context, chosen in (("triphone", items), ("manner", by_manner)):
            begin = time.process_time()
            ours = abx_error(
                features,
                chosen,
                FRAME_SHIFT,
                first_frame=FIRST_FRAME,
                context="triphone",
                max_items_per_cell=EVERYTHING,
                max_x_speakers=EVERYTHING,
            )
            seconds = time.process_time() - begin
            with tempfile.TemporaryDirectory() as folder:
                other = fastabx_error(
                    arguments.fastabx_python, features, chosen, Path(folder)
                )
            difference = max(abs(ours[k] - other[k]) for k in ("within", "across"))
            print(
                f"| {name} | {context} | {ours['triples']:,} "
                f"| {ours['within']:.3f} / {ours['across']:.3f} "
                f"| {other['within']:.3f} / {other['across']:.3f} "
                f"| {difference:.4f} | {seconds:.1f} / {other['seconds']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
