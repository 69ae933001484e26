"""The tasks of the representation benchmark, each a callable of a learning rate."""

import hashlib
import json
import os
import shutil
import statistics
from functools import cached_property, partial
from pathlib import Path

import torch
from frame_phones import FrameProbe, frames_and_labels, phone_classes
from hyperpyyaml import load_hyperpyyaml
from loading import load_recipe
from pca_export import write_pca_export

from speechbrain_vae.analysis.abx import abx_error
from speechbrain_vae.analysis.items import items_from_alignment
from speechbrain_vae.dataio.feature_cache import open_features
from speechbrain_vae.dataio.manifests import read_manifests
from speechbrain_vae.dataio.prepare import prepare
from speechbrain_vae.downstream import frozen_features
from speechbrain_vae.lobes.adapter import FeatureAdapter
from speechbrain_vae.lobes.features import LogMel
from speechbrain_vae.lobes.front_ends import SPECTRAL, FrontEnd
from speechbrain_vae.pretraining import NormalisedFeatures

ROOT = Path(__file__).resolve().parents[1]

BUDGETS = {
    "small": {"frames": 60, "abx": 60, "per": 240, "wer": 420, "speaker": 60}
    | {"digits": 60},
    "full": {"frames": 120, "abx": 90, "per": 600, "per_bilstm": 1800, "wer": 1800}
    | {"speaker": 120, "digits": 120},
}
"""Seconds that each task takes, about, with frames of 512 numbers every 20 ms."""


class Setup:
    """Corpora, front ends and cached features of one call of the benchmark.

    Arguments
    ---------
    arguments : argparse.Namespace
        The command line.
    """

    def __init__(self, arguments):
        self.arguments = arguments
        self.runs = Path(arguments.runs)
        self._front_ends = {}

    def name(self, feature):
        """What the table calls a feature."""
        if "=" in feature:
            return feature.split("=", 1)[0]
        source, _, layer = feature.partition("@")
        if source in SPECTRAL or source == "pca":
            return source
        path = Path(source)
        parts = [p for p in path.parts if p not in ("export", "results", "/", "..")]
        return "/".join(parts[-2:]) + (f" {layer}" if layer else "")

    def source(self, feature):
        """The keys ``features`` and ``layer`` of a recipe."""
        source, _, layer = feature.split("=", 1)[-1].partition("@")
        if source == "pca":
            source = str(self.pca)
        return source, layer or "features"

    def folder(self, feature):
        """Where results on a feature are kept."""
        folders = self.arguments.data_folder, self.arguments.digits_folder
        paths = [folder and os.path.abspath(folder) for folder in folders]
        settings = [self.front_end(feature).settings, self.arguments.corpus, *paths]
        digest = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:12]
        return self.runs / f"{self.name(feature).replace('/', '-')}-{digest}"

    def front_end(self, feature):
        """The front end of a feature."""
        if feature not in self._front_ends:
            source, layer = self.source(feature)
            self._front_ends[feature] = FrontEnd(source, layer)
        return self._front_ends[feature]

    def facts(self, feature):
        """Size, frame shift and, of an export, how long its training took."""
        front_end = self.front_end(feature)
        facts = {
            "size": front_end.size // front_end.layers,
            "frame_shift": front_end.frame_shift,
        }
        report = Path(self.source(feature)[0]).parent / "report.json"
        if report.is_file():
            train = json.loads(report.read_text())["train"]
            keys = ("cpu_seconds", "wall_seconds", "epochs", "parameters")
            facts |= {key: train[key] for key in keys if key in train}
        return facts

    @cached_property
    def entries(self):
        """Entries of the corpus by split."""
        return self.prepared(self.arguments.corpus, self.arguments.data_folder)

    def prepared(self, corpus, data_folder, **options):
        """Entries of a corpus by split, prepared once."""
        folder = self.runs / "manifests" / corpus
        prepare(corpus, data_folder, folder, **options)
        return read_manifests(folder)

    @cached_property
    def pca(self):
        """The export of PCA of the corpus's training set."""
        folder = self.runs / "pca-export" / self.arguments.corpus
        if not (folder / "hyperparams.yaml").is_file():
            log_mel, train = LogMel(), self.entries["train"]
            cached = open_features(train, log_mel, self.runs / "cache")
            write_pca_export(folder, NormalisedFeatures(cached, train, log_mel))
        return folder

    def features(self, feature, split):
        """Cached features of a split, by utterance."""
        front_end, part = self.front_end(feature), self.entries[split]
        return open_features(part, front_end, self.runs / "cache")


class Frames:
    """Phone accuracy of a linear probe of single frames, in percent."""

    rates = (0.001, 0.003, 0.01)

    def __init__(self, setup, feature, budget):
        self.epochs = {"small": 3, "full": 8}[budget]
        front_end = setup.front_end(feature)
        self.adapter = FeatureAdapter(front_end)
        self.classes = phone_classes(setup.entries)
        place = front_end.frame_shift, front_end.first_frame
        self.data = {}
        for split, part in setup.entries.items():
            feats = setup.features(feature, split)
            self.data[split] = frames_and_labels(feats, part, *place, self.classes)
        self.adapter.fit([self.data["train"][0]])

    def __call__(self, rate, seed):
        torch.manual_seed(seed)
        probe = FrameProbe(self.adapter, 1 + max(self.classes.values()))
        probe.fit(self.data["train"], rate, self.epochs, seed)
        return {
            "valid": 100 - probe.accuracy(self.data["valid"]),
            "frames": probe.accuracy(self.data["test"]),
        }


class ABX:
    """ABX errors in percent; how dimensions are standardised is the choice."""

    rates = ("as they are", "training set", "utterance")

    def __init__(self, setup, feature, budget):
        self.setup, self.feature = setup, feature
        self.front_end = setup.front_end(feature)
        self.adapter = FeatureAdapter(self.front_end)
        if self.front_end.codebook_sizes:
            self.rates = ("one-hot",)
        else:
            train = setup.features(feature, "train")
            self.adapter.fit(train[utt] for utt in setup.entries["train"])
            if self.front_end.layers > 1:
                self.rates = ("training set",)

    @torch.no_grad()
    def adapt(self, feats, rate):
        """Frames as they are compared."""
        if rate == "one-hot":
            sizes = self.front_end.codebook_sizes
            codes = zip(feats.long().unbind(-1), sizes, strict=True)
            hot = [torch.nn.functional.one_hot(c, size) for c, size in codes]
            return torch.cat(hot, dim=-1).float()
        if rate == "utterance":
            return (feats - feats.mean(0)) / feats.std(0, correction=0).clamp(min=1e-5)
        return self.adapter(feats.unsqueeze(0))[0] if rate == "training set" else feats

    def error(self, split, rate, seed):
        """Errors on the speakers of a split."""
        entries = self.setup.entries[split]
        items = items_from_alignment(
            {utt: entry["phone_times"] for utt, entry in entries.items()},
            {utt: entry["spk_id"] for utt, entry in entries.items()},
        )
        feats = self.setup.features(self.feature, split)
        return abx_error(
            {utt: self.adapt(feats[utt], rate) for utt in entries},
            items,
            self.front_end.frame_shift,
            self.front_end.first_frame,
            seed=seed,
        )

    def __call__(self, rate, seed):
        found = self.error("test", rate, seed)
        return {
            "valid": self.error("valid", rate, seed)["across"],
            "ABX within": found["within"],
            "ABX across": found["across"],
        }


class Recipe:
    """A downstream recipe of this repository, run in this process.

    Arguments
    ---------
    setup : Setup
    feature : str
    budget : str
    recipe : str
        Its YAML, under ``recipes``.
    metric : str
        What selects the learning rate, of the recipe's validation results.
    numbers : dict
        Columns of the table, from the recipe's test results.
    rates : dict of str to tuple
        Learning rates of each budget.
    epochs : dict of str to int
        Epochs of a budget that are not those of the YAML.
    """

    def __init__(
        self, setup, feature, budget, recipe, metric, numbers, rates, epochs=()
    ):
        self.setup, self.feature = setup, feature
        self.yaml = ROOT / "recipes" / recipe
        self.metric, self.numbers = metric, numbers
        self.rates = rates[budget]
        self.keys = {"number_of_epochs": epochs[budget]} if budget in epochs else {}
        self.module = load_recipe(self.yaml.parents[1].name)

    def __call__(self, rate, seed):
        arguments = self.setup.arguments
        overrides = {"data_folder": arguments.data_folder, "seed": seed, "lr": rate}
        return self.run(self.setup.entries, overrides)

    def run(self, entries, overrides):
        """Run the recipe with these keys, beside those of the feature."""
        source, layer = self.setup.source(self.feature)
        folder = self.setup.folder(self.feature) / f"run-{self.yaml.parents[1].name}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        overrides |= self.keys | {
            "features": source,
            "layer": layer,
            "output_folder": str(folder),
            "feature_cache": str(self.setup.runs / "cache"),
        }
        with open(self.yaml, encoding="utf-8") as file:
            hparams = load_hyperpyyaml(file, overrides)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        run_opts = {"device": device, "noprogressbar": True}
        results = self.module.run(hparams, run_opts, entries, **self.shared(hparams))
        shutil.rmtree(folder)
        found = {name: results[key] for name, key in self.numbers.items()}
        return {"valid": results[f"valid.{self.metric}"], **found}

    def shared(self, hparams):
        """What the runs of the recipe need not compute again."""
        return {}


class Digits(Recipe):
    """The digits of every speaker in turn; each fold chooses its learning rate."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.grid, self.rates = self.rates, ("of each fold",)
        self.entries = self.setup.prepared("fsdd", self.setup.arguments.digits_folder)
        self.feats = None

    def __call__(self, rate, seed):
        folder, entries = self.setup.arguments.digits_folder, self.entries
        best = []
        for fold in range(
            len({e["spk_id"] for p in entries.values() for e in p.values()})
        ):
            keys = {"data_folder": folder, "seed": seed, "fold": fold}
            found = [self.run(entries, {**keys, "lr": lr}) for lr in self.grid]
            best.append(min(found, key=lambda one: one["valid"]))
        return {name: statistics.mean(one[name] for one in best) for name in best[0]}

    def shared(self, hparams):
        """Pooled vectors are the same in every fold."""
        if self.feats is None:
            self.feats = dict(frozen_features(self.entries, hparams))
        return {"feats": self.feats}


TASKS = {
    "frames": Frames,
    "abx": ABX,
    "per": partial(
        Recipe,
        recipe="PhoneRecognition/hparams/linear.yaml",
        metric="PER",
        numbers={"PER": "test.PER"},
        rates={"small": (0.003, 0.01), "full": (0.001, 0.003, 0.01, 0.03)},
    ),
    "per_bilstm": partial(
        Recipe,
        recipe="PhoneRecognition/hparams/bilstm.yaml",
        metric="PER",
        numbers={"PER BiLSTM": "test.PER"},
        rates={"small": (0.001,), "full": (0.0005, 0.001, 0.002)},
    ),
    "wer": partial(
        Recipe,
        recipe="ASR/hparams/speechocean762_bilstm.yaml",
        metric="WER",
        numbers={"WER": "test.WER", "CER": "test.CER"},
        rates={"small": (0.002, 0.005), "full": (0.0005, 0.001, 0.002, 0.005)},
    ),
    "speaker": partial(
        Recipe,
        recipe="SpeakerRec/hparams/linear.yaml",
        metric="error",
        numbers={"speaker": "test.accuracy"},
        rates={"small": (0.0003, 0.001, 0.003), "full": (0.0003, 0.001, 0.003, 0.01)},
    ),
    "digits": partial(
        Digits,
        recipe="Digits/hparams/linear.yaml",
        metric="error",
        numbers={"digits": "test.accuracy"},
        rates={"small": (0.001, 0.01), "full": (0.0003, 0.001, 0.003, 0.01)},
        epochs={"small": 10},
    ),
}
"""What each task is measured by; ``per_bilstm`` is for the full budget."""
