"""The README of an export: what was trained on what, how good, how to use it."""

import io
import re
import shlex

import ruamel.yaml
import yaml
from huggingface_hub import ModelCard
from hyperpyyaml import resolve_references

from speechbrain_vae.reporting import shown

PLACE = "path/to/this/folder"
"""Stands in a card for where the export is, until it is published."""

# Paths and switches of one machine are nobody else's business.
_PRIVATE = ("folder", "log", "cache", "init_from", "workers", "tensorboard")

# What anybody can see in the repository of speechbrain_vae.
_PUBLIC = re.compile(r"(hparams|recipes)(/\w[\w.-]*)+")
_COMMAND = re.compile(r"^python train\.py .*$", re.MULTILINE)
# The two lines of the card that name it.
_NAMED = re.compile(
    r'(FeatureEncoder\.from_hparams\("|FrozenEncoder\n +source: )([^\s"]+)'
)

_USE = """```python
from speechbrain_vae.inference import FeatureEncoder

encoder = FeatureEncoder.from_hparams("{place}")
features = encoder.encode_file("speech.wav")  # [T, {size}], every {ms:g} ms
```

In a SpeechBrain YAML:

```yaml
compute_features: !new:speechbrain_vae.lobes.frozen.FrozenEncoder
    source: {place}
```
"""


def model_card(
    report: dict, command: str, settings: dict | None = None, figure: str | None = None
) -> str:
    """The README of an export, in Markdown, filled from the run.

    Arguments
    ---------
    report : dict
        As given to :func:`speechbrain_vae.reporting.write_report`.
    command : str
        The command that trained the model.
    settings : dict, optional
        Of the run; see :func:`run_settings`.
    figure : str, optional
        Name of an image in the same folder.

    Returns
    -------
    str

    Example
    -------
    >>> card = model_card({"test.reconstruction_mse": 0.03}, "python train.py vae.yaml")
    >>> "| `test.reconstruction_mse` | 0.03 |" in card
    True
    """
    shared = {k: v for k, v in report.items() if k not in ("skipped", "export")}
    test = {k: v for k, v in shared.items() if k.startswith("test.")}
    rest = {k: v for k, v in shared.items() if k not in test}
    size = report.get("latent_dim", "D")
    parts = [
        "---",
        "library_name: speechbrain",
        "pipeline_tag: feature-extraction",
        "tags: [speechbrain, speechbrain-vae, speech, feature-extraction]",
        "---",
        "# A speech encoder trained with speechbrain-vae\n",
        _USE.format(place=PLACE, size=size, ms=1000 * report.get("frame_shift", 0.01)),
    ]
    if figure is not None:
        parts.append(f"![An utterance of the test set, and its features]({figure})\n")
    parts += ["## Training\n", f"```\n{_without_places(command)}\n```\n", _table(rest)]
    parts += ["## Test set\n", _table(test)]
    if settings:
        parts += ["## Settings\n", _table(settings)]
    return "\n".join(parts)


def run_settings(yaml_text: str) -> dict:
    """The plain values at the top of a training YAML, paths left out.

    Arguments
    ---------
    yaml_text : str
        HyperPyYAML, overrides applied.

    Returns
    -------
    dict

    Example
    -------
    >>> run_settings("seed: 1\\ndata_folder: /home/me\\nlr: 0.1\\nopt: {a: 1}")
    {'seed': 1, 'lr': 0.1}
    """
    values = ruamel.yaml.YAML().load(resolve_references(io.StringIO(yaml_text)))
    return {
        key: value
        for key, value in values.items()
        if isinstance(value, (str, int, float))
        and not key.startswith("__")
        and not any(word in key for word in _PRIVATE)
    }


def published_card(card: str, repo_id: str, licence: str) -> str:
    """The card as it stands on the Hub.

    It names the repository, also where the card came from another one.

    Arguments
    ---------
    card : str
        Of :func:`model_card`, perhaps edited since.
    repo_id : str
        ``user/name``.
    licence : str
        The Hub's short name of a licence.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        Its metadata cannot be read.

    Example
    -------
    >>> card = published_card(model_card({}, "train"), "ann/vae", "cc-by-4.0")
    >>> 'from_hparams("ann/vae")' in card, "license: cc-by-4.0" in card
    (True, True)
    """
    card = _renamed(card.replace(PLACE, repo_id), repo_id)
    # An older speechbrain_vae may have left more in the command.
    card = _COMMAND.sub(lambda found: _without_places(found[0]), card)
    try:
        parsed = ModelCard(card, ignore_metadata_errors=False)
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            "README.md: what stands between its first two lines --- is no YAML of a "
            f"model card ({' '.join(str(error).split())}); mend it"
        ) from error
    parsed.data["license"] = licence
    return str(parsed)


def _renamed(card, repo_id):
    first = _NAMED.search(card)
    if first is None:
        return card
    # Other models that the owner mentions keep their names.
    return _NAMED.sub(
        lambda found: found[1] + (repo_id if found[2] == first[2] else found[2]), card
    )


def _without_places(command):
    # Where somebody keeps a corpus says who it is; its name is enough.
    try:
        words = shlex.split(command)
    except ValueError:
        # Its owner wrote something else there.
        words = command.split()
    kept = [_without_place(word) for word in words]
    return command if kept == words else shlex.join(kept)


def _without_place(word):
    # A path to its last part, also as the value of an option or inside of braces.
    whole = re.match(r"(-[\w-]*=?)?(?=[/~.\\]|[A-Za-z]:[/\\])", word)
    if whole:
        return whole[0] + _last_part(word[whole.end() :])
    return "".join(map(_last_part, re.split(r"([][{}(),;=|\"']|:\s)", word)))


def _last_part(piece):
    if _PUBLIC.fullmatch(piece) or not re.search(r"[/\\]", piece):
        return piece
    parts = [part for part in re.split(r"[/\\]", piece) if part.strip()]
    return parts[-1] if parts else ""


def _table(values):
    texts = {name: _without_place(shown(value)) for name, value in values.items()}
    rows = "\n".join(f"| `{name}` | {text} |" for name, text in texts.items())
    return f"| | |\n|---|---|\n{rows}\n"
