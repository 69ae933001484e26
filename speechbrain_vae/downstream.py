"""What the downstream recipes share: corpus, features, training and results.

A recipe brings a YAML, a small Brain on top of :class:`DownstreamBrain`, and the
labels of its task; everything else is here.
"""

import json
import logging
from collections import ChainMap
from pathlib import Path

import speechbrain as sb
import yaml
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.data_pipeline import provides, takes
from speechbrain.utils.distributed import if_main_process, run_on_main

from speechbrain_vae.dataio.audio import load_entry
from speechbrain_vae.dataio.dataset import batch_sampler
from speechbrain_vae.dataio.manifests import read_manifests
from speechbrain_vae.dataio.training_data import check_batches
from speechbrain_vae.nonfinite import NamesNonFiniteLoss
from speechbrain_vae.pretraining import (
    fast_cpu_steps,
    prepare_corpus,
    seed_step,
)
from speechbrain_vae.run_lock import hold_run_lock
from speechbrain_vae.run_settings import (
    building,
    check_purpose,
    load_settings,
    refuse_other_settings,
)

logger = logging.getLogger(__name__)

RESULTS = "results.json"


def open_experiment(argv, **changes):
    """Read the command line and the YAML, and make the output folder.

    Arguments as for :func:`~speechbrain_vae.run_settings.load_settings`.

    Returns
    -------
    hparams : dict
    run_opts : speechbrain.utils.run_opts.RunOptions
    """
    hparams, run_opts, hparams_file, overrides = load_settings(argv, **changes)
    check_purpose(hparams, "front_end", hparams_file)
    run_on_main(hold_run_lock, args=[hparams["output_folder"]])
    run_on_main(refuse_other_settings, args=[hparams])
    sb.create_experiment_directory(hparams["output_folder"], hparams_file, overrides)
    return hparams, run_opts


def open_corpus(hparams, label=None):
    """Prepare the corpus of a YAML and read its manifests.

    Arguments
    ---------
    hparams : dict
        With ``corpus``, ``data_folder``, ``corpus_options``, ``sample_rate``,
        ``seed`` and ``output_folder``.
    label : str, optional
        Entries without it, or where it is empty, are left out and counted in the log.

    Returns
    -------
    dict of str to dict
        Entries of ``train``, ``valid`` and ``test``.

    Raises
    ------
    ValueError
        A split has no entry with the label.
    """
    folder = Path(hparams["output_folder"]) / "manifests"
    run_on_main(prepare_corpus, args=[hparams, folder])
    entries = read_manifests(folder)
    return entries if label is None else labelled(entries, label)


def labelled(entries, label):
    """The entries that have a label.

    Arguments
    ---------
    entries : dict of str to dict
        Entries of each split.
    label : str
        Key of an entry: "words", "phones", "spk_id".

    Returns
    -------
    dict of str to dict

    Raises
    ------
    ValueError
        A split is left without an entry.

    Example
    -------
    >>> labelled({"test": {"a": {"words": "yes"}, "b": {"words": " "}}}, "words")
    {'test': {'a': {'words': 'yes'}}}
    """
    kept = {}
    for split, items in entries.items():
        kept[split] = {
            utt: entry
            for utt, entry in items.items()
            if str(entry.get(label) or "").strip()
        }
        left_out = sorted(items.keys() - kept[split].keys())
        if not kept[split]:
            raise ValueError(
                f"no utterance of the {split} set has {label}; choose a corpus that "
                "comes with them, for example --corpus speechocean762"
            )
        if left_out:
            logger.warning(
                "%d utterances of the %s set have no %s and are left out: %s%s",
                len(left_out),
                split,
                label,
                ", ".join(left_out[:5]),
                ", ..." if len(left_out) > 5 else "",
            )
    return kept


def check_labels(name, labels):
    """Refuse labels of validation or test that training never saw.

    Arguments
    ---------
    name : str
        What a label is: "phone", "speaker".
    labels : dict of str to dict
        Labels of each utterance, an iterable each, by split.

    Raises
    ------
    ValueError
        Naming the labels, one split and one of its utterances.

    Example
    -------
    >>> check_labels("digit", {"train": {"a": ["1"]}, "test": {"b": ["2"]}})
    Traceback (most recent call last):
      ...
    ValueError: the train set has no digit 2, the test set has (b); ...
    """
    seen = {label for items in labels["train"].values() for label in items}
    for split, utterances in labels.items():
        for utt, items in utterances.items():
            unseen = sorted(set(items) - seen)
            if unseen:
                raise ValueError(
                    f"the train set has no {name} {', '.join(unseen)}, the {split} set "
                    f"has ({utt}); choose splits that share their {name}s"
                )


def frozen_features(entries, hparams):
    """Features of all utterances, computed once, on the CPU.

    Cached by the splits of the corpus, so a recipe that divides the utterances anew
    asks for them first and shares the cache with those that do not.

    Arguments
    ---------
    entries : dict of str to dict
        Entries of each split of the corpus.
    hparams : dict
        With ``front_end``, ``feature_cache`` and ``num_workers``.

    Returns
    -------
    mapping of str to torch.Tensor, or None
        Features [T, size] by utterance ID; none where the front end learns.
    """
    front_end = hparams["front_end"]
    if not front_end.frozen:
        return None
    folder, workers = hparams["feature_cache"], hparams["num_workers"]
    return ChainMap(*(front_end.open(e, folder, workers) for e in entries.values()))


def downstream_sets(entries, hparams, items=(), keys=(), feats=None):
    """A dataset of each split, with features where the front end is frozen.

    Arguments
    ---------
    entries : dict of str to dict
        Entries of each split.
    hparams : dict
        With ``front_end``, ``feature_cache`` and ``num_workers``.
    items : iterable of callable
        Dynamic items of SpeechBrain's data pipeline: the labels.
    keys : iterable of str
        Their names, to be found in a batch.
    feats : mapping, optional
        Of :func:`frozen_features`; opened for ``entries`` by default.

    Returns
    -------
    dict of str to speechbrain.dataio.dataset.DynamicItemDataset
        Items have ``id``, ``feats`` [T, size] or, where the front end learns, ``sig``
        [S], and the labels.
    """
    feats = frozen_features(entries, hparams) if feats is None else feats
    name = "sig" if feats is None else "feats"
    sets = {}
    for split, part in entries.items():
        if feats is None:
            source = _getter(name, lambda utt_id, part=part: load_entry(part[utt_id]))
        else:
            source = _getter(name, feats.__getitem__)
        sets[split] = DynamicItemDataset(
            part, dynamic_items=[source, *items], output_keys=["id", name, *keys]
        )
    return sets


def _getter(name, get):
    @takes("id")
    @provides(name)
    def pipeline(utt_id):
        return get(utt_id)

    return pipeline


@register_checkpoint_hooks
class SameInput:
    """Keeps a run to the input it began with: files may change under one name.

    Arguments
    ---------
    settings : dict
        What the input depends on.
    what : str
        What it is, for the message.

    Example
    -------
    >>> path = getfixture("tmp_path") / "features.ckpt"
    >>> SameInput({"features": "fbank"}).save(path)
    >>> SameInput({"features": "mfcc"}).load(path, end_of_epoch=True)
    Traceback (most recent call last):
      ...
    ValueError: ... is of other features (the export was replaced): ...
    """

    def __init__(self, settings, what="features (the export was replaced)"):
        self.settings = settings
        self.what = what

    @mark_as_saver
    def save(self, path):
        """Write the settings."""
        Path(path).write_text(json.dumps(self.settings))

    @mark_as_loader
    def load(self, path, end_of_epoch):
        """Compare them."""
        # As YAML, whose errors a checkpointer takes for damage.
        if yaml.safe_load(Path(path).read_text()) != self.settings:
            raise ValueError(
                f"{path} is of other {self.what}: choose another --output_folder, or "
                "delete that one"
            )


class DownstreamBrain(NamesNonFiniteLoss, sb.Brain):
    """A Brain on the features of a front end.

    A subclass gives ``compute_forward``, ``compute_objectives`` and
    :meth:`evaluation_metrics`, and resets what it counts in ``on_stage_start``. Its
    ``modules`` hold ``adapter`` and, where it is trained, ``front_end``; its hparams
    ``seed``, ``lr_annealing``, ``epoch_counter`` and ``train_logger``.
    """

    metric = "loss"
    """The number, the lower the better, that selects a checkpoint on validation."""

    model = None
    """What :func:`make_brain` built; ``modules.model`` may have DDP around it."""

    def represent(self, batch):
        """Input of the downstream model for a batch.

        Returns
        -------
        feats : torch.Tensor
            Shape [B, T, adapter.output_size].
        lengths : torch.Tensor
            Relative lengths, shape [B].
        """
        if self.hparams.front_end.frozen:
            feats, lengths = batch.feats
        else:
            feats, lengths = self.modules.front_end(*batch.sig)
        return self.modules.adapter(feats, lengths), lengths

    def evaluation_metrics(self, stage):
        """Numbers of the stage that has just ended, beside its loss, as floats."""
        return {}

    def write_errors(self, errors, path):
        """Write a metric of SpeechBrain's with its details, from one process."""
        if if_main_process():
            with open(path, "w", encoding="utf-8") as file:
                errors.write_stats(file)

    def on_fit_batch_start(self, batch, should_step):
        """Randomness is a function of the step, so a resumed run repeats it."""
        epoch = self.hparams.epoch_counter.current
        seed_step(self.hparams.seed, epoch, self.step)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log, anneal and save."""
        stats = {"loss": float(stage_loss)}
        if stage == sb.Stage.TRAIN:
            self.train_stats = stats
            return
        stats |= self.evaluation_metrics(stage)
        if stage == sb.Stage.TEST:
            self.results = stats
            self.hparams.train_logger.log_stats(
                {"Epoch loaded": self.hparams.epoch_counter.current}, test_stats=stats
            )
            return
        self.valid_stats = stats
        old_lr, new_lr = self.hparams.lr_annealing(epoch)
        sb.nnet.schedulers.update_learning_rate(self.optimizer, new_lr)
        self.hparams.train_logger.log_stats(
            {"epoch": epoch, "lr": old_lr}, self.train_stats, stats
        )
        self.checkpointer.save_and_keep_only(
            meta={name: float(value) for name, value in stats.items()},
            min_keys=[self.metric],
        )


def make_brain(brain_class, hparams, run_opts, output_size, **recoverables):
    """Build the model for its sizes, and the Brain that trains it.

    Arguments
    ---------
    brain_class : type
        A subclass of :class:`DownstreamBrain`.
    hparams : dict
        With ``model``, a callable of an input and an output size, ``adapter``,
        ``modules``, ``opt_class`` and ``checkpointer``.
    run_opts : dict
        SpeechBrain's.
    output_size : int
        Number of classes.
    **recoverables
        What else belongs in a checkpoint: the label encoder.

    Returns
    -------
    DownstreamBrain
    """
    modules = dict(hparams["modules"])
    # Its weights are a function of the seed, whatever was drawn before.
    seed_step(hparams["seed"], 0, 0, rank=0)
    with building():
        modules["model"] = hparams["model"](hparams["adapter"].output_size, output_size)
    recoverables["model"] = modules["model"]
    if hparams["front_end"].frozen:
        # It serves loaders, whose processes must not use a GPU.
        modules.pop("front_end", None)
    else:
        recoverables["front_end"] = hparams["front_end"]
    same = SameInput(hparams["front_end"].settings)
    hparams["checkpointer"].add_recoverable("same_features", same, optional_load=True)
    hparams["checkpointer"].add_recoverables(recoverables)
    brain = brain_class(
        modules=modules,
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.model = modules["model"]
    return brain


def fit_and_test(brain, sets, test=True):
    """Train, select on the validation set, test, and write ``results.json``.

    Arguments
    ---------
    brain : DownstreamBrain
    sets : dict of str to DynamicItemDataset
        Of :func:`downstream_sets`.
    test : bool
        Whether the test set is looked at; learning rates are chosen without it.

    Returns
    -------
    dict
        ``valid.NAME`` of the selected checkpoint and, with ``test``, ``test.NAME``.
    """
    hparams = brain.hparams
    front_end = hparams.front_end
    if front_end.frozen:
        hparams.adapter.fit(_column(sets["train"], "feats"))
    else:
        wavs = (wav.to(brain.device) for wav in _column(sets["train"], "sig"))
        hparams.adapter.fit(front_end.raw(wav.unsqueeze(0))[0][0] for wav in wavs)
    loaders = {
        split: {
            "batch_sampler": batch_sampler(
                dataset,
                hparams.batch_seconds,
                hparams.num_buckets,
                hparams.seed,
                shuffle=split == "train",
            ),
            "num_workers": hparams.num_workers,
            "persistent_workers": hparams.num_workers > 0,
        }
        for split, dataset in sets.items()
    }
    # SpeechBrain tells it the epoch, which other batches belong to.
    brain.train_sampler = loaders["train"]["batch_sampler"]
    check_batches(len(brain.train_sampler))
    with fast_cpu_steps():
        brain.fit(
            hparams.epoch_counter,
            sets["train"],
            sets["valid"],
            train_loader_kwargs=loaders["train"],
            valid_loader_kwargs=loaders["valid"],
        )
    best = brain.checkpointer.find_checkpoint(min_key=brain.metric).meta
    # Beside the statistics, SpeechBrain keeps two entries of its own there.
    own = ("unixtime", "end-of-epoch")
    results = {f"valid.{name}": v for name, v in best.items() if name not in own}
    if test:
        brain.evaluate(
            sets["test"], min_key=brain.metric, test_loader_kwargs=loaders["test"]
        )
        results |= {f"test.{name}": value for name, value in brain.results.items()}
    write_results(results, hparams.output_folder)
    return results


def write_results(results, output_folder):
    """Write ``results.json`` into the folder of an experiment.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> write_results({"test.error": 1.5}, folder)
    >>> json.loads((folder / RESULTS).read_text())
    {'test.error': 1.5}
    """
    path = Path(output_folder) / RESULTS
    run_on_main(path.write_text, args=[json.dumps(results, indent=1) + "\n"])


def _column(dataset, key):
    with dataset.output_keys_as([key]):
        for index in range(len(dataset)):
            yield dataset[index][key]
