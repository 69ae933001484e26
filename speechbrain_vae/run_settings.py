"""The settings of a run: where they come from, and that a folder has those of one."""

import io
import os
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


def with_base(hparams_file, overrides: str) -> tuple[str, str]:
    """Follow the key ``base`` of a YAML, which then is a set of overrides.

    Arguments
    ---------
    hparams_file : str or Path
        A YAML; where it has the key ``base``, a path from its folder, it says what
        differs from that one.
    overrides : str
        YAML of what differs from both.

    Returns
    -------
    hparams_file : str
        The YAML that is the base of all.
    overrides : str
        All that differs from it.

    Raises
    ------
    FileNotFoundError
        There is no such base.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> _ = (folder / "vae.yaml").write_text("lr: 1")
    >>> _ = (folder / "big.yaml").write_text("{base: vae.yaml, lr: 3, seed: 4}")
    >>> path, overrides = with_base(folder / "big.yaml", "{seed: 5}")
    >>> path == str(folder / "vae.yaml"), overrides.split()
    (True, ['lr:', '3', 'seed:', '5'])
    """
    path = Path(hparams_file)
    yaml = ruamel.yaml.YAML()
    settings = yaml.load(path.read_text(encoding="utf-8"))
    if "base" not in settings:
        return str(hparams_file), overrides
    base = Path(os.path.normpath(path.parent / settings.pop("base")))
    if not base.is_file():
        raise FileNotFoundError(f"{path} names a base that does not exist: {base}")
    settings.update(yaml.load(overrides) or {})
    out = io.StringIO()
    yaml.dump(dict(settings), out)
    return with_base(base, out.getvalue())
