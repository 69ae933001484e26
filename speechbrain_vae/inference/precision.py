"""Low precision at inference: less memory and time, for a little of the accuracy."""

import copy
import warnings

import torch
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from speechbrain_vae.nnet.gru import GRU

PRECISIONS = ("fp32", "bf16", "int8")


def lower_precision(
    autoencoder: torch.nn.Module, precision: str, device: str = "cpu"
) -> torch.nn.Module:
    """A model as it is computed at a precision.

    Arguments
    ---------
    autoencoder : torch.nn.Module
        In evaluation mode.
    precision : str
        ``"fp32"`` and ``"bf16"`` leave the weights as they are (see :func:`autocast`).
        ``"int8"``: linear and recurrent layers have 8-bit weights, and quantise their
        input by its range at each call; convolutions stay as they are.
    device : str
        Where it will run.

    Returns
    -------
    torch.nn.Module
        The model itself, or a quantised copy that cannot be trained.

    Raises
    ------
    ValueError
        An unknown precision, or int8 elsewhere than on a CPU.

    Example
    -------
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4))
    >>> type(lower_precision(model, "int8")[0]).__module__
    'torch.ao.nn.quantized.dynamic.modules.linear'
    """
    check_precision(precision, device)
    if precision != "int8":
        return autoencoder
    model = copy.deepcopy(autoencoder)
    for module in list(model.modules()):
        # Of weight normalisation, the weights: layers of 8 bits know no other.
        if is_parametrized(module):
            for name in dict(module.parametrizations.named_children()):  # type: ignore[union-attr]
                remove_parametrizations(module, name)
        if isinstance(module, GRU):
            # What is quantised is looked up by its class.
            module.__class__ = torch.nn.GRU  # type: ignore[assignment]
    with warnings.catch_warnings():
        # It moves to another package one day; torch up to 2.11 has it.
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.ao.quantization.quantize_dynamic(
            model,
            {torch.nn.Linear, torch.nn.GRU, torch.nn.LSTM},
            dtype=torch.qint8,
            inplace=True,
        )


def autocast(precision: str, device: str = "cpu") -> torch.autocast:
    """The context in which a model of this precision runs.

    Example
    -------
    >>> with autocast("bf16"):
    ...     (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    torch.bfloat16
    """
    return torch.autocast(
        torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"
    )


def check_precision(precision: str, device: str | torch.device = "cpu") -> None:
    """Refuse an unknown precision, and int8 elsewhere than on a CPU.

    Example
    -------
    >>> check_precision("fp8")
    Traceback (most recent call last):
      ...
    ValueError: precision must be one of fp32, bf16, int8; got 'fp8'
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}"
        )
    if precision == "int8" and torch.device(device).type != "cpu":
        raise ValueError(
            f'precision="int8" runs on the CPU alone; got {device}: use "bf16" there'
        )


def check_device(device: str | torch.device) -> None:
    """Refuse a device that PyTorch cannot use here.

    Example
    -------
    >>> check_device("cpu")
    >>> check_device("banana")
    Traceback (most recent call last):
      ...
    ValueError: PyTorch cannot use the device 'banana' here; give cpu, or cuda ...
    """
    try:
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f"PyTorch cannot use the device {str(device)!r} here; give cpu, or cuda "
            "where it has a GPU"
        ) from error
