"""An output folder belongs to one experiment: no results of another under its name."""

from pathlib import Path

import ruamel.yaml

IDENTITY = (
    *("features", "layer", "freeze", "corpus", "corpus_options", "seed", "lr"),
    *("task", "split", "fold", "segments"),
)
"""Keys without which a checkpoint is another experiment's."""


def refuse_other_settings(hparams):
    """Refuse to go on from the checkpoints of another experiment.

    SpeechBrain resumes from whatever lies in the folder: features of the same size
    would be given the results of those before them.

    Arguments
    ---------
    hparams : dict
        Of the experiment, before its ``output_folder`` is written to.

    Raises
    ------
    ValueError
        There are checkpoints, and ``hyperparams.yaml`` beside them says otherwise.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "save" / "CKPT+1").mkdir(parents=True)
    >>> _ = (folder / "hyperparams.yaml").write_text("features: mfcc")
    >>> refuse_other_settings({"features": "fbank", "output_folder": folder})
    Traceback (most recent call last):
      ...
    ValueError: ... holds a run with features: mfcc, this one has fbank; ...
    """
    folder = Path(hparams["output_folder"])
    written = folder / "hyperparams.yaml"
    if not (written.is_file() and any(folder.glob("save/CKPT+*"))):
        return
    earlier = ruamel.yaml.YAML().load(written.read_text(encoding="utf-8")) or {}
    for key in IDENTITY:
        if {key} <= earlier.keys() & hparams.keys() and earlier[key] != hparams[key]:
            raise ValueError(
                f"{folder} holds a run with {key}: {earlier[key]}, this one has "
                f"{hparams[key]}; choose another --output_folder, or delete that one"
            )
