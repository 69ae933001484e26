"""The settings of a run: where they come from, whether they can be used, and that a
folder has those of one."""

import contextlib
import dataclasses
import difflib
import importlib.util
import io
import math
import operator
import os
from pathlib import Path

import ruamel.yaml
import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from speechbrain.utils.distributed import ddp_init_group, get_local_rank, infer_device
from speechbrain.utils.run_opts import HELP_TEXTS, RunOptions

from speechbrain_vae.inference.precision import check_device
from speechbrain_vae.kinds import check_kind
from speechbrain_vae.nnet.distributed import is_distributed

MAY_CHANGE = {
    *("output_folder", "save_folder", "train_log", "errors_file", "feature_cache"),
    *("number_of_epochs", "finetuning_epochs", "patience"),
    *("num_workers", "activation_checkpointing"),
    *("ckpt_interval_minutes", "tensorboard"),
    *("search", "beam_size", "ngram", "blank_penalties", "trials", "num_trials"),
}
"""Settings that a run may go on with others of: where it is, how long it takes, what it
computes with, and how it is tested."""

_PATHS = {
    "output_folder": str,
    **dict.fromkeys(("data_folder", "feature_cache", "init_from"), (str, type(None))),
}
_RECIPE_PATHS = ("features", "lexicon", "trials")
_LISTS = ("jit_module_keys", "compile_module_keys")
_ABOVE_ZERO, _FROM_ZERO = (operator.gt, "more than 0"), (operator.ge, "at least 0")
_NUMBERS = {
    **{"lr": _ABOVE_ZERO, "lr_final": _FROM_ZERO, "batch_seconds": _ABOVE_ZERO},
    # SpeechBrain's help has negative ones clip nothing; they turn the gradient around.
    "max_grad_norm": (operator.gt, "more than 0 (1e9 clips nothing)"),
}
_WHOLE = {
    **dict.fromkeys(("seed", "num_workers", "lr_warmup_steps"), 0),
    **dict.fromkeys(("blocks", "num_layers", "piece_frames", "gap"), 0),
    **dict.fromkeys(("warmup_steps", "growth_steps"), 0),
    **dict.fromkeys(("number_of_epochs", "patience", "num_buckets"), 1),
    **dict.fromkeys(("grad_accumulation_factor", "optimizer_step_limit"), 1),
    **dict.fromkeys(("n_mels", "stride", "shift", "kernel_size", "channels"), 1),
    **dict.fromkeys(("hidden_size", "latent_size", "codebook_size"), 1),
}
"""Settings that are whole numbers, and the least that each can be."""


def load_settings(argv, **changes):
    """Read the command line and the YAML, and build what the YAML names.

    Arguments
    ---------
    argv : list of str
        Arguments of the script: the YAML, SpeechBrain's run options, overrides.
    **changes
        Keys of the YAML that the script sets itself, whatever the command line says.

    Returns
    -------
    hparams : dict
    run_opts : speechbrain.utils.run_opts.RunOptions
    hparams_file : str
        The YAML that is the base of all.
    overrides : str
        YAML of all that differs from it.

    Raises
    ------
    ValueError
        A setting cannot be used; the message names it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "vae.yaml"
    >>> _ = path.write_text("{lr: 0.1, seed: 1}")
    >>> load_settings([str(path), "--lr", "0.2"], seed=2)[0]
    {'lr': 0.2, 'seed': 2}
    >>> load_settings([str(path), "--lr", "fast"])
    Traceback (most recent call last):
      ...
    ValueError: lr must be a number; got 'fast'
    """
    _, run_opts, _ = sb.parse_arguments(argv)
    hparams_file, given = _split(argv)
    run_opts = _for_this_machine(run_opts)
    # A recipe of several experiments comes here once for each.
    if not is_distributed():
        ddp_init_group(run_opts)
    hparams_file, overrides = with_base(hparams_file, _text(given))
    yaml = ruamel.yaml.YAML()
    given = {**yaml.load(overrides), **changes}
    known = yaml.load(Path(hparams_file).read_text(encoding="utf-8"))
    for name, value in given.items():
        if name not in known:
            like = ", ".join(difflib.get_close_matches(str(name), known)) or "none"
            raise ValueError(f"{hparams_file} has no key {name}; similar ones: {like}")
        check_kind(name, value, known[name])
    with open(hparams_file, encoding="utf-8") as file, building():
        settings = yaml.load(resolve_references(file, _text(given)))
        check_settings(settings, run_opts)
        overrides = _text({**given, **_from_home(settings)})
        file.seek(0)
        hparams = load_hyperpyyaml(file, overrides)
        if "opt_class" in hparams:
            hparams["opt_class"]([torch.nn.Parameter(torch.zeros(1))])
    return hparams, run_opts, hparams_file, overrides


def _split(argv):
    """The YAML among the arguments of a script, and its keys with their values.

    SpeechBrain joins words that belong to no option with the value before them, and
    takes an option without a value for null.

    Example
    -------
    >>> hparams_file, given = _split(["vae.yaml", "--debug", "--lr", "2", "--seed=1"])
    >>> hparams_file, dict(given)
    ('vae.yaml', {'lr': 2, 'seed': 1})
    """
    defaults = RunOptions()
    run_opts = {name: defaults.get(name) for name in (*HELP_TEXTS, *_LISTS)}
    values, words, name, full = {}, [], None, True
    for word in argv:
        if word.startswith("--"):
            name, *value = word.removeprefix("--").split("=", 1)
            # Of SpeechBrain's own options the last one counts.
            if name in values and name not in run_opts:
                raise ValueError(f"{name} is given twice; leave one out")
            values[name] = value
            full = bool(value) or run_opts.get(name) is False
        elif full and name not in _LISTS:
            words.append(word)
        else:
            values[name].append(word)
            full = True
    if len(words) != 1:
        raise ValueError(
            "give one YAML, then options as --name value, such as python train.py "
            f"hparams/vae.yaml --lr 0.001; got {', '.join(words) or 'no YAML'}"
        )
    given = {name: value for name, value in values.items() if name not in run_opts}
    for name, value in given.items():
        if not "".join(value).strip():
            raise ValueError(f"{name} is given without a value; null stands for none")
    text = "\n".join(f"{name}: {value}" for name, (value,) in given.items())
    return words[0], ruamel.yaml.YAML().load(text) or {}


def _from_home(settings):
    """Paths of the settings that begin with ``~``, which no shell has replaced."""
    paths = {name: settings.get(name) for name in (*_PATHS, *_RECIPE_PATHS)}
    return {
        name: os.path.expanduser(path)
        for name, path in paths.items()
        if isinstance(path, str) and path.startswith("~")
    }


def _for_this_machine(run_opts):
    """SpeechBrain's run options; processes of a machine without GPUs talk by gloo."""
    changes = {}
    limit = run_opts["optimizer_step_limit"]
    if limit is not None:
        # SpeechBrain leaves it a string.
        changes["optimizer_step_limit"] = ruamel.yaml.YAML().load(limit)
    gpus, rank = torch.cuda.device_count(), get_local_rank()
    cpu = "cpu" in (run_opts["device"] or "") or not gpus
    given = run_opts.overridden_args
    if rank is not None and cpu and "distributed_backend" not in given:
        changes["distributed_backend"] = "gloo"
        changes["device"] = run_opts["device"] or "cpu"
    elif rank is not None and rank >= gpus and run_opts.distributed_backend != "gloo":
        raise ValueError(
            f"there are {gpus} GPUs for process {rank + 1} of this machine; start "
            "fewer, or add --device cpu --distributed_backend gloo"
        )
    changes["overridden_args"] = given | changes.keys()
    return dataclasses.replace(run_opts, **changes)


@contextlib.contextmanager
def building():
    """Name the YAML in errors of what is built from it.

    Raises
    ------
    ValueError
        In place of the errors that a value of a wrong kind leads to.

    Example
    -------
    >>> with building():
    ...     torch.nn.Linear(2, "wide")
    Traceback (most recent call last):
      ...
    ValueError: the YAML cannot be built: ...
    """
    kinds = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError)
    try:
        yield
    except (*kinds, RuntimeError) as error:
        reasons = "; ".join(str(reason) for reason in error.args)
        raise ValueError(f"the YAML cannot be built: {reasons}") from error


def check_settings(settings, run_opts):
    """Refuse settings that no constructor looks at.

    Arguments
    ---------
    settings : dict
        Of the YAML, with its references resolved and nothing built.
    run_opts : speechbrain.utils.run_opts.RunOptions
        What the command line says of them comes before the YAML.

    Raises
    ------
    ValueError
        A number out of its range, a device or a module that is not there.

    Example
    -------
    >>> from speechbrain.utils.run_opts import RunOptions
    >>> check_settings({"num_workers": -1}, RunOptions())
    Traceback (most recent call last):
      ...
    ValueError: num_workers must be a whole number, at least 0; got -1
    """
    modules = {*settings.get("modules", ()), *({"model"} & settings.keys())}
    given = {name: run_opts[name] for name in run_opts.overridden_args}
    settings = {**run_opts.as_dict(), **settings, **given}
    for name, kind in _PATHS.items():
        if not isinstance(value := settings.get(name, "."), kind) or value == "":
            raise ValueError(f"{name} must be a path, such as ./1; got {value!r}")
    for name, least in _WHOLE.items():
        value = settings.get(name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and value >= least):
            must = f"must be a whole number, at least {least}"
            raise ValueError(f"{name} {must}; got {value!r}")
    for name, (is_right, words) in _NUMBERS.items():
        value = settings.get(name, 1)
        check_kind(name, value, default=1)
        if not (is_right(value, 0) and value < math.inf):
            raise ValueError(f"{name} must be {words}; got {value}")
    if settings.get("tensorboard") and not importlib.util.find_spec("tensorboard"):
        raise ValueError("tensorboard: True needs a package: pip install tensorboard")
    device = settings["device"] or infer_device()
    check_device(device)
    precisions = settings["precision"], settings["eval_precision"]
    if "cpu" in device and "fp16" in precisions:
        raise ValueError("precision fp16 needs a GPU; on a CPU give --precision bf16")
    for name in _LISTS:
        if unknown := set(settings[name] or ()) - modules:
            unknown, known = (", ".join(sorted(names)) for names in (unknown, modules))
            raise ValueError(f"{name} has {unknown}; the YAML's modules: {known}")


def check_purpose(hparams, key, hparams_file):
    """Refuse the YAML of another script.

    Arguments
    ---------
    hparams : dict
    key : str
        What the YAMLs of this script have.
    hparams_file : str

    Raises
    ------
    ValueError
        It is not there.

    Example
    -------
    >>> check_purpose({"autoencoder": None}, "front_end", "hparams/vae.yaml")
    Traceback (most recent call last):
      ...
    ValueError: hparams/vae.yaml has no front_end: it is for another train.py
    """
    if key not in hparams:
        raise ValueError(f"{hparams_file} has no {key}: it is for another train.py")


def has_checkpoints(folder):
    """Whether a run has been trained in an ``output_folder``, or one of its parts.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "fold0" / "save" / "CKPT+1").mkdir(parents=True)
    >>> [has_checkpoints(folder / name) for name in ("", "fold0", "fold1")]
    [True, True, False]
    """
    places = ("save/CKPT+*", "*/save/CKPT+*")
    return any(any(Path(folder).glob(place)) for place in places)


def refuse_other_settings(hparams):
    """Refuse to go on from the checkpoints of another experiment.

    SpeechBrain resumes from whatever lies in the folder: the weights would be of the
    settings before, and all that is written of them say the new ones.

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
    if not (written.is_file() and has_checkpoints(folder)):
        return
    earlier = _values(ruamel.yaml.YAML().load(written.read_text(encoding="utf-8")))
    now = _values(hparams)
    for key in [*earlier, *(now.keys() - earlier.keys())]:
        before, after = earlier.get(key, "no such key"), now.get(key, "no such key")
        if before == after or (key == "data_folder" and _same_data(before, after)):
            continue
        raise ValueError(
            f"{folder} holds a run with {key}: {before}, this one has {after}; choose "
            "another --output_folder, or delete that one"
        )


def _values(settings):
    """The settings that are values, and decide what a run learns."""

    def is_value(item):
        if isinstance(item, dict):
            return _untagged(item) and all(map(is_value, item.values()))
        if isinstance(item, list):
            return _untagged(item) and all(map(is_value, item))
        return item is None or isinstance(item, (str, int, float))

    return {
        key: value
        for key, value in (settings or {}).items()
        if key not in MAY_CHANGE and is_value(value)
    }


def _untagged(item):
    # What a tag of the file builds is a value no more.
    return getattr(getattr(item, "tag", None), "value", None) is None


def _same_data(before, after):
    """Whether a corpus is where it was, or may have been moved."""
    if not (isinstance(before, str) and isinstance(after, str)):
        return False
    return not os.path.exists(before) or os.path.samefile(before, after)


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
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a YAML such as hparams/vae.yaml")
    yaml = ruamel.yaml.YAML()
    settings = yaml.load(path.read_text(encoding="utf-8"))
    if not isinstance(settings, dict):
        raise ValueError(
            f"{path} has no settings; give a YAML such as hparams/vae.yaml"
        )
    if "base" not in settings:
        return str(hparams_file), overrides
    base = Path(os.path.normpath(path.parent / settings.pop("base")))
    if not base.is_file():
        raise FileNotFoundError(f"{path} names a base that does not exist: {base}")
    settings.update(yaml.load(overrides) or {})
    return with_base(base, _text(settings))


def _text(settings):
    out = io.StringIO()
    ruamel.yaml.YAML().dump(dict(settings), out)
    return out.getvalue()
