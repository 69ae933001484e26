"""Checkpoints that a kill at any moment cannot damage."""

import os
import pathlib
import shutil

from speechbrain.utils.checkpoints import CKPT_PREFIX, METAFNAME, Checkpointer
from speechbrain.utils.distributed import ddp_barrier, if_main_process


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, whose checkpoints exist wholly or not at all.

    SpeechBrain writes the file that makes a folder a checkpoint first; a run that
    is killed while it saves then resumes from a checkpoint with files missing.
    Here that file comes last, and a checkpoint that is only half deleted is not
    listed. Arguments as in ``speechbrain.utils.checkpoints.Checkpointer``.

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
        if if_main_process():
            for folder in self.checkpoints_dir.glob(f"{CKPT_PREFIX}*"):
                if not (folder / METAFNAME).exists():
                    shutil.rmtree(folder)

    def save_checkpoint(self, *args, **kwargs):
        """As in SpeechBrain; the checkpoint appears when all of it is written."""
        checkpoint = super().save_checkpoint(*args, **kwargs)
        if if_main_process():
            for path in checkpoint.paramfiles.values():
                _flush(path)
            os.replace(_pending(checkpoint.path), checkpoint.path / METAFNAME)
        # All processes must list the same checkpoints when they delete old ones.
        ddp_barrier()
        return checkpoint

    def list_checkpoints(self):
        """The checkpoints that are whole."""
        return [
            checkpoint
            for checkpoint in super().list_checkpoints()
            if all(name in checkpoint.paramfiles for name in self._required())
        ]

    def _required(self):
        # A data loader joins the recoverables only when the training starts.
        return [name for name in self.recoverables if "dataloader" not in name]

    def _save_checkpoint_metafile(self, fpath, *args, **kwargs):
        return super()._save_checkpoint_metafile(
            _pending(pathlib.Path(fpath).parent), *args, **kwargs
        )


def _pending(folder):
    return folder / f"{METAFNAME}.pending"


def _flush(path):
    with open(path, "rb") as file:
        os.fsync(file.fileno())
