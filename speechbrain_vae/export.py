"""The one place that knows what an export folder holds.

===========================  ==============================================
``hyperparams.yaml``         the model alone, its parts written out, with
                             SpeechBrain's ``modules`` and ``pretrainer``
``features.safetensors``     statistics of the features
``autoencoder.safetensors``  weights
``README.md``                the model card
``test.png``                 its figure, where there is one
===========================  ==============================================

Exports of version 1 have ``.ckpt`` files in the place of safetensors, and no
checksums.
"""

import io
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import ruamel.yaml
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.utils.fetching import FetchConfig, fetch

from speechbrain_vae.allocation_limit import AllocationLimit
from speechbrain_vae.dataio.manifests import printable
from speechbrain_vae.kinds import check_kind
from speechbrain_vae.lobes.autoencoder import Autoencoder
from speechbrain_vae.lobes.features import LogMel
from speechbrain_vae.safe_yaml import MAX_SIZE, UnsafeYAMLError, load_model_yaml
from speechbrain_vae.weights import (
    EXTENSION,
    fill,
    read_weights,
    save_weights,
    sha256,
)

VERSION = 2
"""Version of the format; a reader refuses a newer one."""

YAML = "hyperparams.yaml"
CARD = "README.md"
FIGURE = "test.png"
LOADABLES = ("features", "autoencoder")

_EXTENSIONS = {1: ".ckpt", 2: EXTENSION}
# Constructors also make constants, and weights that they replace.
_MODEL_BYTES_PER_WEIGHT_BYTE = 4
_MODEL_BYTES = 64 * 10**6


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

    features: LogMel
    autoencoder: Autoencoder
    hparams: dict


def write_export(
    folder: str | Path,
    yaml_text: str,
    features: LogMel,
    autoencoder: Autoencoder,
    card: str = "",
    figure: str | Path | None = None,
) -> Path:
    """Write an export folder.

    Arguments
    ---------
    folder : str or Path
        Where to; files of an earlier export are replaced.
    yaml_text : str
        HyperPyYAML, overrides applied, with the keys ``features`` and
        ``autoencoder``.
    features : speechbrain_vae.lobes.features.LogMel
    autoencoder : speechbrain_vae.lobes.autoencoder.Autoencoder
        The trained modules.
    card : str
        The model card, in Markdown.
    figure : str or Path, optional
        An image that the card shows as :data:`FIGURE`.

    Returns
    -------
    Path
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The YAML last: without its weights it would look like a whole export.
    modules = dict(zip(LOADABLES, (features, autoencoder), strict=True))
    checksums = {
        name: save_weights(module, folder / f"{name}{EXTENSION}")
        for name, module in modules.items()
    }
    if figure is not None:
        shutil.copyfile(figure, folder / FIGURE)
    (folder / CARD).write_text(card, encoding="utf-8")
    text = model_yaml(yaml_text, features, autoencoder, checksums)
    (folder / YAML).write_text(text, encoding="utf-8")
    for name in LOADABLES:
        (folder / f"{name}{_EXTENSIONS[1]}").unlink(missing_ok=True)
    return folder


def model_yaml(
    yaml_text: str,
    features: LogMel,
    autoencoder: Autoencoder,
    checksums: dict[str, str],
) -> str:
    """The part of a training YAML that builds the model, made self-contained.

    Arguments
    ---------
    yaml_text : str
        HyperPyYAML with the keys ``features`` and ``autoencoder``.
    features : speechbrain_vae.lobes.features.LogMel
    autoencoder : speechbrain_vae.lobes.autoencoder.Autoencoder
        The modules it builds.
    checksums : dict of str to str
        SHA-256 of their weights' files.

    Returns
    -------
    str
    """
    yaml = ruamel.yaml.YAML()
    training = yaml.load(resolve_references(io.StringIO(yaml_text)))
    facts = {
        "export_version": VERSION,
        **_facts(features, autoencoder),
        "checksums": checksums,
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
        "pretrainer: !new:speechbrain_vae.weights.SafetensorsPretrainer\n"
        f"    loadables:\n{nested}"
    )


def _facts(features, autoencoder):
    return {
        "sample_rate": features.sample_rate,
        "frame_shift": features.frame_shift * autoencoder.stride,
        "feature_size": autoencoder.latent_size,
    }


def read_export(
    source: str | Path, savedir: str | Path | None = None, trust_code: bool = False
) -> Export:
    """Load an export, strictly, in evaluation mode, on the CPU.

    Nothing in the export is executed: weights are tensors alone, and the YAML is
    refused when it names anything but model classes (see
    :mod:`speechbrain_vae.safe_yaml`).

    Arguments
    ---------
    source : str or Path
        A local folder, or the ID of a repository on the Hugging Face Hub.
    savedir : str or Path, optional
        Where files from the Hub are kept, in a folder for each repository.
    trust_code : bool
        Whether the YAML may name any class and function, yours for example. They run
        with your rights: only for an export whose maker you trust.

    Returns
    -------
    Export

    Raises
    ------
    ExportError
        The folder is missing or incomplete, was written by a newer version, names
        code, its facts or weights do not fit its modules, or those not each other.
    OSError
        A file cannot be read.
    """
    check_kind("trust_code", trust_code, default=False)
    path = _file(source, YAML, savedir)
    if path.stat().st_size > MAX_SIZE:
        raise ExportError(f"{path} is too large for the YAML of a model; export again")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ExportError(f"{path} is not text; export again") from error
    version = _version(text, source)
    extension = _EXTENSIONS[version]
    paths = {name: _file(source, f"{name}{extension}", savedir) for name in LOADABLES}
    hparams = _build(text, source, paths, trust_code)
    if hparams.get("export_version") != version:
        raise ExportError(
            f"{source}: the export_version: {version} of its {YAML} is part of a text; "
            "export or download the model again"
        )
    _settle_facts(hparams, source)
    for name, path in paths.items():
        _fill(hparams, name, path)
    _check_works(hparams, source)
    return Export(hparams["features"], hparams["autoencoder"], hparams)


def _version(text, source):
    # By a search: a newer version may not even be YAML that this one can read.
    found = re.search(r"^export_version: *(\d{1,9}) *$", text, re.MULTILINE)
    if found is None:
        raise ExportError(
            f"{source}: its {YAML} was not written by speechbrain_vae; give the folder "
            "that train.py names as export in report.json"
        )
    if int(found[1]) not in _EXTENSIONS:
        raise ExportError(
            f"{source} is an export of version {found[1]}, this speechbrain_vae reads "
            f"up to {VERSION}; upgrade with: pip install -U speechbrain-vae"
        )
    return int(found[1])


def _build(text, source, paths, trust_code):
    weights = sum(path.stat().st_size for path in paths.values())
    limit = AllocationLimit(_MODEL_BYTES_PER_WEIGHT_BYTE * weights + _MODEL_BYTES)
    try:
        hparams = load_hyperpyyaml(text) if trust_code else load_model_yaml(text, limit)
    except UnsafeYAMLError as error:
        raise ExportError(
            f"{source}: its {YAML} is not loaded, since it is not a model alone: "
            f"{error}. If you trust its maker and what it names, load it with "
            "trust_code=True (--trust-code)"
        ) from error
    except Exception as error:
        raise ExportError(
            f"{source}: the model of its {YAML} cannot be built ({_reason(error)}); "
            "export or download it again, or pip install -U speechbrain-vae"
        ) from error
    for name in LOADABLES:
        if not isinstance(hparams.get(name), torch.nn.Module):
            raise ExportError(
                f"{source}: its {YAML} has no module {name}; export or download the "
                "model again"
            )
    return hparams


def _settle_facts(hparams, source):
    try:
        facts = _facts(*(hparams[name] for name in LOADABLES))
    except (AttributeError, TypeError) as error:
        raise ExportError(
            f"{source}: its {' and '.join(LOADABLES)} do not say their rate and size "
            f"({_reason(error)}); export or download the model again"
        ) from error
    for name, value in facts.items():
        given = hparams.get(name, value)
        if not _agree(given, value):
            raise ExportError(
                f"{source}: its {YAML} says {name}: {_reason(given)}, its modules "
                f"{_reason(value)}; export or download the model again"
            )
    hparams.update(facts)


def _agree(given, value):
    if not all(isinstance(number, (int, float)) for number in (given, value)):
        return False
    return 0 < value * (1 - 1e-6) < given < value * (1 + 1e-6)


def _fill(hparams, name, path):
    checksums = hparams.get("checksums")
    checksums = checksums if isinstance(checksums, dict) else {}
    try:
        if path.suffix == EXTENSION and name not in checksums:
            raise ValueError(f"{YAML} has no checksum of {name}")
        if name in checksums and sha256(path) != checksums[name]:
            raise ValueError("its SHA-256 is another one: it was cut or changed")
        fill(hparams[name], read_weights(path))
    except OSError:
        raise
    except Exception as error:
        raise ExportError(
            f"{path} does not hold the weights that {YAML} describes "
            f"({_reason(error)}); export or download the model again"
        ) from error
    hparams[name].eval()


@torch.no_grad()
def _check_works(hparams, source):
    """Encode and decode a little of a tone."""
    features, autoencoder = (hparams[name] for name in LOADABLES)
    wavs = torch.arange(features.sample_rate // 4).mul(0.1).sin().unsqueeze(0)
    try:
        # Seeds mean the same with and without it.
        with torch.random.fork_rng(devices=[]):
            feats, lengths = features(wavs)
            code, code_lengths = autoencoder.encode(feats, lengths)
            autoencoder.decode(code.features, code_lengths, feats.shape[1])
        if not code.features.isfinite().all():
            raise ValueError("features that are not finite")
        if features.needs_statistics and not (features.std > 0).all():
            raise ValueError("standard deviations that are not positive")
    except Exception as error:
        raise ExportError(
            f"{source}: its modules do not work together ({_reason(error)}); export or "
            "download the model again"
        ) from error


def _reason(value):
    return printable(" ".join(str(value).split())[:300]) or type(value).__name__


def _file(source, name, savedir):
    folder = Path(os.path.expanduser(source))
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
    if savedir is not None:
        # SpeechBrain takes a file that is there for the one that is wanted.
        savedir = Path(os.path.expanduser(savedir)) / str(source).replace("/", "--")
    try:
        # With the user's token where there is one: private models are found.
        config = FetchConfig(token=None)
        return Path(fetch(name, str(source), savedir=savedir, fetch_config=config))
    except Exception as error:
        raise ExportError(
            f"there is no folder {source} here, and fetching {name} of it from the "
            f"Hugging Face Hub failed: {_reason(error)}"
        ) from error
