"""The one place that knows what an export folder holds.

=====================  ====================================================
``hyperparams.yaml``   the model alone, its parts written out, with SpeechBrain's
                       ``modules`` and ``pretrainer``
``features.ckpt``      statistics of the features
``autoencoder.ckpt``   weights
``README.md``          the model card
=====================  ====================================================
"""

import io
from dataclasses import dataclass
from pathlib import Path

import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.utils.checkpoints import torch_save
from speechbrain.utils.fetching import fetch

VERSION = 1
"""Version of the format; a reader refuses a newer one."""

YAML = "hyperparams.yaml"
CARD = "README.md"
LOADABLES = ("features", "autoencoder")


class ExportError(ValueError):
    """An export cannot be used; the message says why and what to do."""


@dataclass
class Export:
    """A loaded export.

    Arguments
    ---------
    features : speechbrain_vae.lobes.features.LogMel
    autoencoder : speechbrain_vae.lobes.autoencoder.Autoencoder
    hparams : dict
        Everything in ``hyperparams.yaml``.
    """

    features: torch.nn.Module
    autoencoder: torch.nn.Module
    hparams: dict


def write_export(folder, yaml_text, features, autoencoder, card=""):
    """Write an export folder.

    Arguments
    ---------
    folder : str or Path
        Where to; files of an earlier export are replaced.
    yaml_text : str
        HyperPyYAML, overrides applied, with the keys ``features`` and
        ``autoencoder``.
    features, autoencoder : torch.nn.Module
        The trained modules.
    card : str
        The model card, in Markdown.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The weights first: a YAML without them would look like a whole export.
    for name, module in zip(LOADABLES, (features, autoencoder), strict=True):
        torch_save(module, folder / f"{name}.ckpt")
    (folder / YAML).write_text(model_yaml(yaml_text, features, autoencoder))
    (folder / CARD).write_text(card)
    return folder


def model_yaml(yaml_text, features, autoencoder):
    """The part of a training YAML that builds the model, made self-contained.

    Arguments
    ---------
    yaml_text : str
        HyperPyYAML with the keys ``features`` and ``autoencoder``.
    features, autoencoder : torch.nn.Module
        The modules it builds.

    Returns
    -------
    str
    """
    yaml = ruamel.yaml.YAML()
    training = yaml.load(resolve_references(io.StringIO(yaml_text)))
    facts = {
        "export_version": VERSION,
        "sample_rate": features.sample_rate,
        "frame_shift": features.frame_shift * autoencoder.stride,
        "feature_size": autoencoder.latent_size,
    }
    model = {name: training[name] for name in LOADABLES}
    out = io.StringIO()
    yaml.dump(facts, out)
    yaml.dump(model, out)
    references = "".join(f"    {name}: !ref <{name}>\n" for name in LOADABLES)
    nested = "".join(f"        {name}: !ref <{name}>\n" for name in LOADABLES)
    return (
        f"# Written by speechbrain_vae; load with FeatureEncoder or FrozenEncoder.\n"
        f"{out.getvalue()}modules:\n{references}"
        "pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer\n"
        f"    loadables:\n{nested}"
    )


def read_export(source, savedir=None):
    """Load an export, strictly, in evaluation mode, on the CPU.

    Arguments
    ---------
    source : str or Path
        A local folder, or the ID of a repository on the Hugging Face Hub.
    savedir : str or Path, optional
        Where files from the Hub are kept.

    Returns
    -------
    Export

    Raises
    ------
    ExportError
        The folder is missing or incomplete, was written by a newer version, or its
        weights do not fit its YAML.
    """
    text = _file(source, YAML, savedir).read_text()
    _check_version(text, source)
    hparams = load_hyperpyyaml(text)
    for name in LOADABLES:
        path = _file(source, f"{name}.ckpt", savedir)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            hparams[name].load_state_dict(state, strict=True)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ExportError(
                f"{path} does not hold the weights that {YAML} describes ({reason}); "
                "export or download the model again"
            ) from error
        hparams[name].eval()
    return Export(hparams["features"], hparams["autoencoder"], hparams)


def _check_version(text, source):
    facts = ruamel.yaml.YAML(typ="rt").load(text)
    version = facts.get("export_version") if isinstance(facts, dict) else None
    if version is None:
        raise ExportError(
            f"{source}: its {YAML} was not written by speechbrain_vae; give the folder "
            "that train.py names as export in report.json"
        )
    if version > VERSION:
        raise ExportError(
            f"{source} is an export of version {version}, this speechbrain_vae reads "
            f"up to {VERSION}; upgrade with: pip install -U speechbrain-vae"
        )


def _file(source, name, savedir):
    folder = Path(source)
    if folder.is_dir():
        if not (folder / name).is_file():
            raise ExportError(
                f"{folder} is not an export: it has no {name}; give the folder that "
                "train.py names as export in report.json"
            )
        return folder / name
    if (
        folder.is_absolute()
        or str(source).startswith(".")
        or str(source).count("/") != 1
    ):
        raise ExportError(
            f"there is no export at {source}; give a folder written by train.py or the "
            "ID (user/name) of a model on the Hugging Face Hub"
        )
    try:
        return Path(fetch(name, str(source), savedir=savedir))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ExportError(
            f"there is no folder {source} here, and fetching {name} of it from the "
            f"Hugging Face Hub failed: {reason}"
        ) from error
