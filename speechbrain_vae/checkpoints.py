"""Checkpoints that a kill, a full disk or a damaged file cannot take away."""

import errno
import logging
import os
import pathlib
import pickle
import shutil
import zipfile

import torch
import yaml
from speechbrain.utils.checkpoints import CKPT_PREFIX, METAFNAME, Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process

logger = logging.getLogger(__name__)

# What half a file leads to; PyTorch's RuntimeError says that the model is another.
_UNREADABLE = (
    EOFError,
    KeyError,
    OSError,
    TypeError,
    UnicodeDecodeError,
    pickle.UnpicklingError,
    yaml.YAMLError,
)


class CheckpointError(OSError):
    """A checkpoint cannot be written or read; the message says what to do."""


def check_optimizer(optimizer):
    """Refuse states that are not of the optimiser's parameters.

    Fused optimisers use what has as many numbers, in whatever order they are.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        After it was loaded.

    Raises
    ------
    CheckpointError
        A state has as many numbers as its parameter, in another shape.

    Example
    -------
    >>> weight = torch.nn.Parameter(torch.zeros(2, 3))
    >>> optimizer = torch.optim.Adam([weight])
    >>> optimizer.state[weight] = {"exp_avg": torch.zeros(3, 2)}
    >>> try:
    ...     check_optimizer(optimizer)
    ... except CheckpointError as error:
    ...     print(str(error).split(" (")[0])
    the checkpoint's optimiser is of a model with other shapes
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            # Some keep a number for each row or column of a weight.
            as_many = torch.is_tensor(value) and value.numel() == parameter.numel() > 1
            if as_many and value.shape != parameter.shape:
                raise CheckpointError(
                    "the checkpoint's optimiser is of a model with other shapes "
                    f"({name} is {list(value.shape)}, its weight "
                    f"{list(parameter.shape)}): start anew with another "
                    "--output_folder, or go on with the version that began the run"
                )


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, whose checkpoints exist wholly or not at all.

    SpeechBrain writes the file that makes a folder a checkpoint first; a run that
    is killed while it saves then resumes from a checkpoint with files missing.
    Here that file comes last, and a checkpoint that is only half deleted is not
    listed. One that was damaged later is passed over for the next best, with a
    warning. Arguments as in ``speechbrain.utils.checkpoints.Checkpointer``.

    Example
    -------
    >>> import torch
    >>> folder = getfixture("tmp_path")
    >>> checkpointer = AtomicCheckpointer(folder, {"model": torch.nn.Linear(2, 2)})
    >>> _ = checkpointer.save_checkpoint()
    >>> len(checkpointer.list_checkpoints())
    1
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.damaged = set()

    def save_checkpoint(self, *args, **kwargs):
        """As in SpeechBrain; the checkpoint appears when all of it is written.

        Raises
        ------
        CheckpointError
            The disk is full, or cannot be written for another reason. What was
            written of this checkpoint is removed, older ones are left as they are.
        """
        self._remove_unfinished()
        try:
            checkpoint = super().save_checkpoint(*args, **kwargs)
            if if_main_process():
                for path in checkpoint.paramfiles.values():
                    _flush(path)
                os.replace(_pending(checkpoint.path), checkpoint.path / METAFNAME)
        except (OSError, RuntimeError) as error:
            # PyTorch reports a failed write as a RuntimeError of its zip writer.
            if isinstance(error, RuntimeError) and not _failed_to_write(error):
                raise
            # Asked before what was written is removed, which makes room.
            why = self._why_unsaved(error)
            self._remove_unfinished()
            raise CheckpointError(self._unsaved(why)) from error
        # All processes must list the same checkpoints when they delete old ones.
        ddp_barrier()
        return checkpoint

    def save_and_keep_only(self, *args, num_to_keep=2, **kwargs):
        """As in SpeechBrain, but keeps two: there must be one before the newest.

        SpeechBrain keeps the newest and the best, which is one where they are the same.
        """
        super().save_and_keep_only(*args, num_to_keep=num_to_keep, **kwargs)

    def recover_if_possible(
        self, importance_key=None, max_key=None, min_key=None, ckpt_predicate=None
    ):
        """As in SpeechBrain; a damaged checkpoint gives way to the next best.

        Raises
        ------
        CheckpointError
            There are checkpoints, and all are damaged, or they are of another model.
        """
        keys = (importance_key, max_key, min_key, ckpt_predicate)
        reasons = []
        for checkpoint in self.find_checkpoints(*keys):
            reason = _damage(checkpoint) or self._try(checkpoint)
            if reason is None:
                return checkpoint
            self.damaged.add(checkpoint.path)
            reasons.append(f"{checkpoint.path.name}: {reason}")
            logger.warning(
                "The checkpoint %s is damaged (%s) and is passed over.",
                checkpoint.path,
                reason,
            )
        if reasons:
            raise CheckpointError(
                f"no checkpoint of {self.checkpoints_dir} can be read "
                f"({'; '.join(reasons)}); restore one of them, or remove the folder "
                "to train anew"
            )
        self._check_some_is_whole()
        return None

    def list_checkpoints(self):
        """The checkpoints that are whole."""
        return [
            checkpoint
            for checkpoint in super().list_checkpoints()
            if checkpoint.path not in self.damaged and not self._missing(checkpoint)
        ]

    def _list_checkpoint_dirs(self):
        # SpeechBrain reads the meta file of each, whatever is in it.
        return [f for f in super()._list_checkpoint_dirs() if _readable_meta(f)]

    def _try(self, checkpoint):
        try:
            self.load_checkpoint(checkpoint)
        except CheckpointError:
            # Of a part that is whole, and not for this run.
            raise
        except _UNREADABLE as error:
            return _short(error)
        except RuntimeError as error:
            if "Error(s) in loading state_dict" not in str(error):
                raise
            raise CheckpointError(
                f"{checkpoint.path} is of a model with other parts or sizes "
                f"({_short(error)}): start anew with another --output_folder, or go on "
                "with the settings that began the run"
            ) from error
        return None

    def _remove_unfinished(self):
        if if_main_process():
            for folder in self.checkpoints_dir.glob(f"{CKPT_PREFIX}*"):
                if not (folder / METAFNAME).exists():
                    shutil.rmtree(folder, ignore_errors=True)

    def _why_unsaved(self, error):
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
        full = full or shutil.disk_usage(self.checkpoints_dir).free < 2**20
        return "the disk is full" if full else _short(error)

    def _unsaved(self, why):
        kept = self.find_checkpoint()
        rest = "the run has none yet" if kept is None else f"{kept.path} is whole"
        return (
            f"a checkpoint cannot be saved in {self.checkpoints_dir} ({why}); {rest}: "
            "make room, and give the same command again to go on from there"
        )

    def _missing(self, checkpoint):
        """What a checkpoint lacks that this run needs to go on."""
        return [
            name
            for name in self.recoverables
            # A data loader joins the recoverables only when the training starts.
            if "dataloader" not in name
            and not self.optional_recoverables.get(name)
            and name not in checkpoint.paramfiles
        ]

    def _check_some_is_whole(self):
        missing = [self._missing(each) for each in super().list_checkpoints()]
        if missing and all(missing):
            raise CheckpointError(
                f"no checkpoint of {self.checkpoints_dir} has {', '.join(missing[0])}, "
                "which this run keeps: start anew with another --output_folder, or go "
                "on with the settings that began the run"
            )

    def _save_checkpoint_metafile(self, fpath, *args, **kwargs):
        return super()._save_checkpoint_metafile(
            _pending(pathlib.Path(fpath).parent), *args, **kwargs
        )


def _damage(checkpoint):
    """What is wrong with the files of a checkpoint, or None."""
    for path in checkpoint.paramfiles.values():
        try:
            with open(path, "rb") as file:
                start = file.read(4)
            # The first bytes of PyTorch's files, which carry checksums.
            if start == b"PK\x03\x04":
                with zipfile.ZipFile(path) as archive:
                    broken = archive.testzip()
                if broken is not None:
                    return f"{path.name}: its content does not match its checksum"
            elif not start:
                return f"{path.name} is empty"
        except (OSError, zipfile.BadZipFile) as error:
            return f"{path.name}: {_short(error)}"
    return None


def _readable_meta(folder):
    try:
        with open(folder / METAFNAME, encoding="utf-8") as file:
            meta = yaml.safe_load(file)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        meta = None
    good = isinstance(meta, dict) and {"unixtime", "end-of-epoch"} <= meta.keys()
    if not good:
        logger.warning(
            "The checkpoint %s is damaged (its %s cannot be read) and is passed over.",
            folder,
            METAFNAME,
        )
    return good


def _failed_to_write(error):
    writer = any(name in str(error) for name in ("inline_container", "StreamWriter"))
    return writer or isinstance(error.__context__, OSError)


def _short(error):
    return " ".join(str(error).split())[:200] or type(error).__name__


def _pending(folder):
    return folder / f"{METAFNAME}.pending"


def _flush(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
