"""Weights of an export: tensors in safetensors files, which hold no code."""

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import safetensors.torch
import torch
from speechbrain.utils.fetching import FetchSource
from speechbrain.utils.parameter_transfer import Pretrainer

EXTENSION = ".safetensors"


def save_weights(module: torch.nn.Module, path: str | Path) -> str:
    """Write the state of a module; the file appears whole or not at all.

    Arguments
    ---------
    module : torch.nn.Module
    path : str or Path
        File to write.

    Returns
    -------
    str
        SHA-256 of the file.

    Example
    -------
    >>> path = getfixture("tmp_path") / "linear.safetensors"
    >>> digest = save_weights(torch.nn.Linear(3, 2), path)
    >>> digest == sha256(path)
    True
    """
    path = Path(path)
    # Copies: safetensors refuses parameters that share their memory.
    state = {
        name: tensor.detach().cpu().clone().contiguous()
        for name, tensor in module.state_dict().items()
    }
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.touch()
    mode = temporary.stat().st_mode
    safetensors.torch.save_file(state, temporary)
    # safetensors lets nobody else read the file; what touch gives follows the umask.
    temporary.chmod(mode)
    os.replace(temporary, path)
    return sha256(path)


def read_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """Read tensors by name; nothing in the file is executed, whatever it holds.

    Arguments
    ---------
    path : str or Path
        A safetensors file, or SpeechBrain's ``.ckpt``, of which anything but
        tensors is refused.

    Returns
    -------
    dict of str to torch.Tensor

    Example
    -------
    >>> path = getfixture("tmp_path") / "linear.safetensors"
    >>> _ = save_weights(torch.nn.Linear(3, 2), path)
    >>> sorted(read_weights(path))
    ['bias', 'weight']
    """
    if Path(path).suffix == EXTENSION:
        return safetensors.torch.load_file(path)
    _refuse_compressed(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # PyTorch's own text advises to run what is in it.
        raise ValueError("it holds more than tensors") from None


def fill(module: torch.nn.Module, state: dict[str, torch.Tensor]):
    """Give a module its tensors: all of them, of its own types, all finite.

    Arguments
    ---------
    module : torch.nn.Module
    state : dict of str to torch.Tensor
        Of :func:`read_weights`.

    Example
    -------
    >>> fill(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1).half().state_dict())
    Traceback (most recent call last):
      ...
    ValueError: weight holds torch.float16 where the model has torch.float32
    """
    for name, tensor in module.state_dict().items():
        if name in state and state[name].dtype != tensor.dtype:
            raise ValueError(
                f"{name} holds {state[name].dtype} where the model has {tensor.dtype}"
            )
    module.load_state_dict(state, strict=True)
    for name, tensor in module.state_dict().items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} holds NaN or infinity")


def load_weights(module: torch.nn.Module, path: str | Path, end_of_epoch: bool = False):
    """Load weights into a module, every one and no other.

    Arguments
    ---------
    module : torch.nn.Module
    path : str or Path
        Of :func:`save_weights`, under any name.
    end_of_epoch : bool
        Not used; hooks of SpeechBrain are given it.

    Example
    -------
    >>> path = getfixture("tmp_path") / "linear.safetensors"
    >>> _ = save_weights(torch.nn.Linear(3, 2), path)
    >>> load_weights(torch.nn.Linear(3, 2), path)
    """
    fill(module, safetensors.torch.load_file(path))


def _refuse_compressed(path):
    # PyTorch compresses nothing, so its files are no smaller than what they hold.
    with zipfile.ZipFile(path) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > Path(path).stat().st_size:
        raise ValueError(f"it is compressed, and {unpacked} bytes when unpacked")


def sha256(path):
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


class SafetensorsPretrainer(Pretrainer):
    """SpeechBrain's ``Pretrainer``, for safetensors beside the YAML.

    What SpeechBrain's own ``from_hparams`` finds in an export: each loadable is
    fetched from ``NAME.safetensors`` and loaded strictly. Arguments as in
    ``speechbrain.utils.parameter_transfer.Pretrainer``.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> trained, fresh = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    >>> _ = save_weights(trained, folder / "linear.safetensors")
    >>> pretrainer = SafetensorsPretrainer(loadables={"linear": fresh})
    >>> _ = pretrainer.collect_files(default_source=str(folder))
    >>> pretrainer.load_collected()
    >>> torch.equal(trained.weight, fresh.weight)
    True
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for name in self.loadables:
            self.custom_hooks.setdefault(name, load_weights)

    def collect_files(self, default_source=None, *args, **kwargs):
        """As in SpeechBrain, with the names of safetensors files."""
        for name in self.loadables:
            if default_source is None or name in self.paths:
                continue
            if isinstance(default_source, FetchSource):
                kind, place = default_source
                self.paths[name] = FetchSource(kind, f"{place}/{name}{EXTENSION}")
            else:
                self.paths[name] = f"{default_source}/{name}{EXTENSION}"
        return super().collect_files(default_source, *args, **kwargs)
