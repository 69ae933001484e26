"""Parts of the pretraining script that are worth a name and a test."""

import contextlib
import copy
import json
import logging
import os
import time
from pathlib import Path

import torch
import yaml
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import get_rank
from speechbrain.utils.epoch_loop import EpochCounterWithStopper

from speechbrain_vae.checkpoints import CheckpointError
from speechbrain_vae.dataio.manifests import printable, write_json
from speechbrain_vae.dataio.prepare import prepare
from speechbrain_vae.dataio.sharded import read_index
from speechbrain_vae.export import read_export
from speechbrain_vae.nnet.normalisation import mean_and_std
from speechbrain_vae.nnet.ppca import PPCA
from speechbrain_vae.run_settings import has_checkpoints

logger = logging.getLogger(__name__)

STEPS_PER_EPOCH = 2**24
"""More steps than any epoch has: seeds of different epochs do not meet."""

LARGEST_KEPT_BLOCK = 2**25 - 2**16
"""Bytes; with its header and alignment a block of less than 32 MiB."""


def seed_step(seed, epoch, step, rank=None):
    """Make torch's randomness a function of the run's seed and the position in it.

    A run that resumes from any checkpoint then draws what the undisturbed one drew.

    Arguments
    ---------
    seed, epoch, step : int
        Of the run, and where it is.
    rank : int, optional
        The process whose noise to draw; its own by default.

    Example
    -------
    >>> seed_step(1, 2, 3)
    >>> a = torch.rand(2)
    >>> seed_step(1, 2, 3)
    >>> bool((a == torch.rand(2)).all())
    True
    """
    position = epoch * STEPS_PER_EPOCH + step
    rank = get_rank() or 0 if rank is None else rank
    torch.manual_seed(hash((seed, position, rank)) % 2**63)


@contextlib.contextmanager
def fast_cpu_steps():
    """Two settings of the process that shorten the steps of a training on a CPU.

    Denormal numbers are zeros as long as the context lasts: gradients that fade along
    a recurrent layer are denormal in the end, and such a step takes twice the time.

    And glibc keeps what one step frees for the next, instead of giving it back to the
    system and asking for it again page by page, an eighth of the step of ``ae.yaml``.
    What it keeps at the end of its heap is twice the largest block that was ever freed,
    of blocks up to 32 MiB (mallopt(3), M_TRIM_THRESHOLD): one such block is freed here.

    Example
    -------
    >>> tiny = torch.full((1,), 1e-40)
    >>> with fast_cpu_steps():
    ...     (tiny + tiny).item()
    0.0
    >>> (tiny + tiny).item() > 0
    True
    """
    torch.empty(LARGEST_KEPT_BLOCK, dtype=torch.uint8)
    tiny = torch.full((1,), 1e-40)
    before = (tiny + tiny).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


@register_checkpoint_hooks
class Stopwatch:
    """Seconds of training, over all the processes of an interrupted run.

    ``seconds`` is what the clock on the wall says, ``cpu_seconds`` what this process
    computed, on all its threads: other work on the machine changes the first alone.

    Example
    -------
    >>> watch = Stopwatch()
    >>> watch.start()
    >>> watch.lap() >= 0
    True
    """

    def __init__(self):
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.since = None

    def start(self):
        """Start, or start again."""
        self.since = time.monotonic(), time.process_time()

    def lap(self):
        """Add the time since the last call, and return the sum in seconds."""
        now = time.monotonic(), time.process_time()
        if self.since is not None:
            self.seconds += now[0] - self.since[0]
            self.cpu_seconds += now[1] - self.since[1]
        self.since = now
        return self.seconds

    @mark_as_saver
    def save(self, path):
        """Write the sums."""
        self.lap()
        sums = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        with open(path, "w", encoding="utf-8") as file:
            yaml.dump(sums, file)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Read the sums."""
        # Evaluation loads an older checkpoint; the time since then was spent too.
        with open(path, encoding="utf-8") as file:
            sums = yaml.safe_load(file)
        self.seconds = max(self.seconds, sums["seconds"])
        self.cpu_seconds = max(self.cpu_seconds, sums["cpu_seconds"])


@register_checkpoint_hooks
class PatientEpochCounter(EpochCounterWithStopper):
    """Counts epochs and stops early, also in a run that was interrupted.

    Of SpeechBrain's counter a checkpoint keeps the epoch alone: a resumed run would
    wait for the whole patience again, and take a worse epoch for an improvement.
    Arguments as in ``speechbrain.utils.epoch_loop.EpochCounterWithStopper``.

    Example
    -------
    >>> counter = PatientEpochCounter(9, 2, limit_warmup=0, direction="min")
    >>> for epoch in counter:
    ...     counter.update_metric([3.0, 1.0, 2.0, 2.0, 2.0][epoch - 1])
    >>> counter.current, counter.best_limit, counter.should_stop
    (4, 2, True)
    """

    @mark_as_saver
    def save(self, path):
        """Write the epoch, and the best so far."""
        state = {
            "epoch": self.current,
            "best_epoch": self.best_limit,
            "best_score": self.best_score,
        }
        with open(path, "w", encoding="utf-8") as file:
            yaml.dump(state, file)

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Read them; the patience is that of the command, which may be another."""
        with open(path, encoding="utf-8") as file:
            state = yaml.safe_load(file)
        if isinstance(state, int):
            # Written by SpeechBrain's counter.
            state = {"epoch": state, "best_epoch": state, "best_score": self.best_score}
        self.current = state["epoch"] - (not end_of_epoch)
        if self.current > self.limit:
            raise CheckpointError(
                f"{path} is of epoch {self.current}, more than the number_of_epochs of "
                f"{self.limit}: give --number_of_epochs {self.current}, or more"
            )
        self.best_limit, self.best_score = state["best_epoch"], state["best_score"]
        waited = self.current - self.best_limit
        counts = self.current > self.limit_warmup
        self.should_stop = counts and waited >= self.limit_to_stop


class NormalisedFeatures:
    """The normalised features of a manifest's utterances, one after the other.

    Arguments
    ---------
    feats : CachedFeatures or ComputedFeatures
        dB features by utterance ID.
    ids : iterable of str
        The utterances, in order.
    features : speechbrain_vae.lobes.features.LogMel
        What normalises them.
    """

    def __init__(self, feats, ids, features):
        self.feats = feats
        self.ids = list(ids)
        self.features = features

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, place):
        feats = self.feats[self.ids[place]].unsqueeze(0)
        return self.features.normalise(feats.to(self.features.mean.device))[0].cpu()

    def __iter__(self):
        return (self[place] for place in range(len(self)))


def feature_statistics(feats, ids):
    """Mean and standard deviation of each band over the utterances, in dB.

    Arguments
    ---------
    feats : CachedFeatures or ComputedFeatures
        dB features by utterance ID.
    ids : iterable of str
        The utterances.

    Returns
    -------
    mean, std : torch.Tensor
        Each of shape [F].

    Example
    -------
    >>> feature_statistics({"a": torch.tensor([[1.0], [3.0]])}, ["a"])
    (tensor([2.]), tensor([1.]))
    """
    mean, std = mean_and_std(feats[utt_id] for utt_id in ids)
    return mean.float(), std.float()


def check_start(hparams):
    """Refuse a start that the model does not allow, whatever the data.

    Arguments
    ---------
    hparams : dict
        With ``autoencoder``, ``init_from``, ``linear_start`` and
        ``number_of_epochs``; ``training_stages`` where there are some.

    Raises
    ------
    ValueError
        The message says which setting to change.
    """
    model = copy.deepcopy(hparams["autoencoder"])
    if "training_stages" in hparams:
        hparams["training_stages"].check(model, hparams["number_of_epochs"])
    bins = model.encoder.input_size
    start(model, hparams, [torch.eye(model.stride * bins).reshape(-1, bins)])


def start(model, hparams, train_utterances):
    """Initialise a new model.

    Arguments
    ---------
    model : speechbrain_vae.lobes.autoencoder.Autoencoder
    hparams : dict
        With ``init_from`` and ``linear_start``.
    train_utterances : iterable of torch.Tensor
        Normalised features [T, F] that a linear start is fitted to.
    """
    if hparams["init_from"]:
        logger.info("Warm start from %s", hparams["init_from"])
        model.warm_start(read_export(hparams["init_from"]).autoencoder)
    elif hparams["linear_start"]:
        logger.info("Linear start: probabilistic PCA of the training set")
        model.start_linear(PPCA(model.stride, train_utterances))


def prepare_corpus(hparams, save_folder):
    """Write the manifests of the corpus that a training YAML names.

    Arguments
    ---------
    hparams : dict
        With ``corpus``, ``data_folder``, ``corpus_options``, ``sample_rate``, ``seed``
        and ``output_folder``. Without a data folder the corpus is synthetic
        speech, made under ``results/``; without a corpus it is any folder of audio.
    save_folder : str or Path
        Where the manifests go.

    Returns
    -------
    The summary of :func:`speechbrain_vae.dataio.prepare.prepare`; none for shards.

    Raises
    ------
    ValueError
        As ``prepare``; or no data folder, an option that a run sets itself, or any for
        shards. Another corpus than the one that checkpoints of the run are trained on.
    """
    corpus, data_folder = hparams["corpus"], hparams["data_folder"]
    if data_folder is None:
        if corpus not in (None, "synthetic"):
            raise ValueError(
                f"corpus {corpus} needs its folder: add --data_folder FOLDER"
            )
        corpus, data_folder = "synthetic", "results/synthetic"
    options = hparams["corpus_options"]
    if corpus == "shards":
        # Prepared before they were written.
        if options:
            raise ValueError(
                f"shards have no corpus_options, got {', '.join(map(str, options))}; "
                'give those when you write shards, and --corpus_options "{}" here'
            )
        _keep_shards(hparams, Path(save_folder) / "shards.json")
        return None
    settings = {
        "corpus": corpus or "folder",
        "data_folder": data_folder,
        "save_folder": save_folder,
        "seed": hparams["seed"],
        "workers": max(1, os.cpu_count() or 1),
        "sample_rate": hparams["sample_rate"],
        "keep": has_checkpoints(hparams["output_folder"]),
    }
    if taken := settings.keys() & options.keys():
        raise ValueError(
            f"corpus_options has {', '.join(sorted(taken))}, which a run sets itself"
        )
    return prepare(**settings, **options)


def _keep_shards(hparams, path):
    """Note which shards a run is trained on, and refuse others later."""
    shards = {
        split: [shard["sha256"] for shard in part["shards"]]
        for split, part in read_index(hparams["data_folder"])["splits"].items()
    }
    folder = hparams["output_folder"]
    if has_checkpoints(folder) and path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != shards:
            raise ValueError(
                f"{printable(folder)} was trained on other shards than those that are "
                f"in {printable(hparams['data_folder'])} now; bring those back, or "
                "choose another --output_folder"
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, shards)
