#!/usr/bin/env python3
"""Train an autoencoder on speech without labels.

> python train.py hparams/vae.yaml
> python train.py hparams/vae.yaml --corpus folder --data_folder my_recordings
> torchrun --nproc_per_node=4 train.py hparams/vae.yaml  # four GPUs

Every key of the YAML can be given on the command line. A run that was
interrupted goes on when the same command is given again.
"""

import logging
import shlex
import sys
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.distributed import run_on_main

from speechbrain_vae.checkpoints import CheckpointError, check_optimizer
from speechbrain_vae.dataio.sharded import ShardError
from speechbrain_vae.dataio.training_data import open_data
from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.export import FIGURE, write_export
from speechbrain_vae.lobes.targets import Denoising, Reconstruction
from speechbrain_vae.metrics import EpochTotals, mean_error
from speechbrain_vae.model_card import model_card, run_settings
from speechbrain_vae.nnet.distributed import (
    leave_processes,
    mean_across,
    weight_of_process,
)
from speechbrain_vae.nnet.recomputation import recompute_activations
from speechbrain_vae.nonfinite import NamesNonFiniteLoss, NonFiniteLossError
from speechbrain_vae.pretraining import (
    NormalisedFeatures,
    Stopwatch,
    check_start,
    fast_cpu_steps,
    feature_statistics,
    prepare_corpus,
    seed_step,
    start,
)
from speechbrain_vae.reporting import (
    aggregate_posterior,
    draw,
    linear_baselines,
    write_report,
)
from speechbrain_vae.run_lock import hold_run_lock
from speechbrain_vae.run_settings import (
    check_purpose,
    load_settings,
    refuse_other_settings,
)

logger = logging.getLogger("speechbrain_vae.train")

KEPT = ("loss", "reconstruction_mse", "index_mse")
"""Numbers of the validation that a checkpoint knows and the report gives."""


class AutoencoderBrain(NamesNonFiniteLoss, sb.Brain):
    """Trains any autoencoder of :mod:`speechbrain_vae.lobes.autoencoder`."""

    def compute_forward(self, batch, stage):
        """The output of the autoencoder for a batch of dB features."""
        feats, lengths = batch.to(self.device).feats
        feats = self.modules.features.normalise(feats, lengths)
        output = self.modules.autoencoder(feats, lengths)
        if stage == sb.Stage.TRAIN:
            self.totals.add_training(output)
        else:
            self.totals.add(output, **self.errors(feats, lengths, output))
        return output

    def compute_objectives(self, output, batch, stage):
        """The loss in nats per frame."""
        if stage != sb.Stage.TRAIN:
            return output.loss
        return output.loss * weight_of_process(output.frames)

    def errors(self, feats, lengths, output):
        """Error of the reconstruction from the features, not from a sample."""
        model = self.hparams.autoencoder
        _, target, mask = model.target(feats, lengths)
        code_lengths = model.encoder.output_lengths(feats, lengths)

        def error(code):
            mean = model.decode(code, code_lengths, feats.shape[1])
            return mean_error(mean, target, mask)

        features, indices = output.bottleneck.features, output.bottleneck.indices
        errors = {"reconstruction_mse": error(features)}
        if indices is not None:
            codes = model.bottleneck.quantiser.lookup(indices)
            # Of a curve, features say more than the indices that bitrates count.
            same = torch.equal(codes, features)
            errors["index_mse"] = errors["reconstruction_mse"] if same else error(codes)
        return errors

    def on_fit_start(self):
        """Resume where there is something to resume, and time the training."""
        super().on_fit_start()
        check_optimizer(self.optimizer)
        self.watch.start()

    def on_fit_batch_start(self, batch, should_step):
        """Randomness is a function of the step, so a resumed run repeats it."""
        seed_step(self.hparams.seed, self.epoch, self.step)
        if self.optimizer_step < self.hparams.lr_warmup_steps:
            fraction = (self.optimizer_step + 1) / self.hparams.lr_warmup_steps
            for group in self.optimizer.param_groups:
                group["lr"] = self.hparams.lr * fraction

    def on_stage_start(self, stage, epoch=None):
        """Start the totals; validation draws the same noise every epoch."""
        model = self.hparams.autoencoder
        rate = 1 / (self.hparams.features.frame_shift * model.stride)
        quantiser = getattr(model.bottleneck, "quantiser", None)
        self.totals = EpochTotals(rate, quantiser)
        self.epoch = epoch
        if stage != sb.Stage.TRAIN:
            # The same on all processes: together they decide when to stop.
            seed_step(self.hparams.seed, 0, 0, rank=0)
        elif hasattr(self.hparams, "training_stages"):
            self.hparams.training_stages.apply(model, epoch)

    def on_stage_end(self, stage, stage_loss, epoch=None):
        """Log, anneal, decide about stopping, and save."""
        if stage == sb.Stage.TRAIN:
            loss = mean_across(stage_loss, self.device)
            self.train_stats = {"loss": loss, **self.totals.training_summary()}
            if self.train_stats.get("collapsed"):
                logger.warning(
                    "The codebook has collapsed: %(dead_codes)d codes served no frame "
                    "of this epoch (usage %(usage).0f %%).",
                    {**self.train_stats, "usage": 100 * self.train_stats["usage"]},
                )
            return
        stats = self.totals.summary()
        if stage == sb.Stage.TEST:
            self.test_stats = stats
            size = getattr(self.totals.usage, "codebook_size", 0)
            if stats.get("codes", size) < size:
                logger.warning(
                    "The codebook has grown to %d of %d codes only: train longer, or "
                    "lower growth_steps.",
                    *(stats["codes"], size),
                )
            self.hparams.train_logger.log_stats(
                {"Epoch loaded": self.hparams.epoch_counter.current}, test_stats=stats
            )
            return
        self.hparams.epoch_counter.update_metric(stats["loss"])
        old_lr, new_lr = self.hparams.lr_annealing(epoch)
        sb.nnet.schedulers.update_learning_rate(self.optimizer, new_lr)
        for log in self.loggers:
            log.log_stats({"epoch": epoch, "lr": old_lr}, self.train_stats, stats)
        self.watch.lap()
        self.checkpointer.save_and_keep_only(
            meta={name: stats[name] for name in KEPT if name in stats}
            | {"epoch": epoch},
            min_keys=["loss"],
        )


def main(argv):
    """Prepare, train, test and export."""
    with one_line_errors():
        hparams, run_opts, hparams_file, overrides = load_settings(argv)
        check_purpose(hparams, "autoencoder", hparams_file)
        check_start(hparams)
        run_on_main(hold_run_lock, args=[hparams["output_folder"]])
        run_on_main(refuse_other_settings, args=[hparams])
        sb.create_experiment_directory(
            hparams["output_folder"], hparams_file, overrides
        )
        folder = Path(hparams["output_folder"])
        run_on_main(prepare_corpus, args=[hparams, folder / "manifests"])
        data, skipped = open_data(hparams, folder / "manifests")
        features, train = hparams["features"], data["train"]
        if features.needs_statistics:
            features.set_statistics(*feature_statistics(train.feats, train.ids))
        utterances = {
            split: NormalisedFeatures(part.feats, part.ids, features)
            for split, part in data.items()
        }
        loaders = {
            split: part.loader(hparams, shuffle=split == "train")
            for split, part in data.items()
        }
        check_target(hparams["autoencoder"], utterances["train"])
        # What a run resumes replaces it.
        start(hparams["autoencoder"], hparams, utterances["train"])
        if hparams["activation_checkpointing"]:
            recompute_activations(hparams["autoencoder"])
        brain = AutoencoderBrain(
            modules=hparams["modules"],
            opt_class=hparams["opt_class"],
            hparams=hparams,
            run_opts=run_opts,
            checkpointer=hparams["checkpointer"],
        )
        brain.watch = Stopwatch()
        brain.checkpointer.add_recoverable("watch", brain.watch)
        brain.utterances = utterances
        brain.loggers = [hparams["train_logger"]]
        if hparams["tensorboard"]:
            brain.loggers.append(
                sb.utils.train_logger.TensorboardLogger(folder / "tensorboard")
            )
    with one_line_errors((CheckpointError, NonFiniteLossError, ShardError)):
        with fast_cpu_steps():
            brain.fit(
                hparams["epoch_counter"],
                train.train_set(brain, loaders["train"]),
                data["valid"].dataset,
                train_loader_kwargs=loaders["train"],
                valid_loader_kwargs=loaders["valid"],
            )
        # Evaluation loads the best checkpoint, and its counter.
        counter = hparams["epoch_counter"]
        ended = {
            "stopped_by": "patience" if counter.should_stop else "number_of_epochs",
            "train.epochs": counter.current,
        }
        brain.evaluate(
            data["test"].dataset, min_key="loss", test_loader_kwargs=loaders["test"]
        )
    with one_line_errors((OSError,)):
        run_on_main(finish, args=[brain, data, skipped, ended, folder, argv])


def check_target(model, train_utterances):
    """Refuse to train on nothing: the first utterance mostly has a target."""
    for feats in train_utterances:
        _, _, mask = model.target(feats.unsqueeze(0), None)
        if mask.any():
            return
    raise ValueError(
        "no training utterance is so long that any of its frames has a target: lower "
        "shift"
    )


def finish(brain, data, skipped, ended, folder, argv):
    """Write the report, the figure and the export."""
    hparams = brain.hparams
    features, model = hparams.features, hparams.autoencoder
    stats = brain.test_stats
    kl_per_dim = brain.totals.mean_kl_per_dim()
    rate = 1 / (features.frame_shift * model.stride)
    report = {f"test.{name}": value for name, value in renamed(stats).items()}
    continuous = brain.totals.usage is None
    if continuous and isinstance(model.target, (Reconstruction, Denoising)):
        active = stats.get("active_units", model.latent_size)
        baselines = linear_baselines(
            brain.utterances["train"],
            brain.utterances["test"],
            features.frame_shift,
            model.latent_size * rate,
            active * rate,
        )
        report |= {f"test.{name}": value for name, value in baselines.items()}
    if hasattr(model.bottleneck, "sample"):
        aggregate = aggregate_posterior(model, brain.utterances["test"])
        report |= {f"test.{name}": value for name, value in aggregate.items()}
    best = brain.checkpointer.find_checkpoint(min_key="loss").meta
    report |= {
        "corpus": hparams.corpus or ("folder" if hparams.data_folder else "synthetic"),
        "latent_dim": model.latent_size,
        "frame_shift": features.frame_shift * model.stride,
        **ended,
        "valid.best_epoch": best["epoch"],
        "valid.loss_nats_per_frame": best["loss"],
        **{f"valid.{name}": best[name] for name in KEPT[1:] if name in best},
        "train.wall_seconds": brain.watch.seconds,
        "train.cpu_seconds": brain.watch.cpu_seconds,
        "train.parameters": sum(p.numel() for p in model.parameters()),
    }
    for split, part in data.items():
        report |= {f"{split}.{name}": value for name, value in part.facts.items()}
    report["skipped_files"] = len(skipped)
    report["skipped"] = [f"{item['wav']}: {item['reason']}" for item in skipped]
    report["export"] = str(folder / "export")

    figure = folder / FIGURE
    test = data["test"]
    first = min(test.ids)
    (feats,) = NormalisedFeatures(test.feats, [first], features)
    draw(
        figure,
        model,
        feats.to(brain.device),
        features.frame_shift,
        kl_per_dim,
        test.name(first),
    )
    text = (folder / "hyperparams.yaml").read_text()
    command = shlex.join(["python", "train.py", *argv])
    card = model_card(report, command, run_settings(text), FIGURE)
    write_export(folder / "export", text, features, model, card, figure)
    logger.info("Report (%s):\n%s", figure, write_report(folder, report))


def renamed(stats):
    """The report's names of an epoch's means; all in nats per input frame."""
    units = {"loss", "elbo", "kl", "reconstruction"}
    return {
        f"{name}_nats_per_frame" if name in units else name: value
        for name, value in stats.items()
    }


if __name__ == "__main__":
    main(sys.argv[1:])
    leave_processes()
