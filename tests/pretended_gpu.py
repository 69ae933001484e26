"""A GPU that is only pretended: what would mix it with the CPU fails, on any machine.

Its tensors say that they are on the device "meta", and hold one on the CPU that all is
computed with. As on a GPU, an operation takes no tensor of the other device, unless it
is a number, a copy, or documented to; and processes that were forked cannot use it.
Kernels, streams, autocast and memory of a GPU are not pretended.
"""

import contextlib
import importlib
import os
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

GPU = torch.device("meta")
OWNER = os.getpid()

COPIES = {"copy_", "_to_copy"}
"""Operations that take tensors of both devices."""

TAKE_CPU = {
    "index",
    "_pack_padded_sequence",
    "_pack_padded_sequence_backward",
    "_pad_packed_sequence",
}
"""Operations that take places or lengths on the CPU."""


class GpuTensor(torch.Tensor):
    """A tensor that says it is on the pretended GPU.

    Arguments
    ---------
    held : torch.Tensor
        On the CPU, with its numbers.
    """

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        """A tensor of the same form, without numbers."""
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=GPU,
        )

    def __init__(self, held):
        self.held = held

    def __repr__(self):
        return f"GpuTensor({self.held})"

    def __tensor_flatten__(self):
        """It marks what modules exchange their parameters for, when they move."""
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(held, *_):
        """The inverse."""
        return GpuTensor(held["held"])

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        """Check the devices, and compute on the CPU."""
        return compute(operation, args, kwargs or {})

    def __deepcopy__(self, memo):
        copy = GpuTensor(self.held.clone())
        if isinstance(self, torch.nn.Parameter):
            copy = torch.nn.Parameter(copy, self.requires_grad)
        return memo.setdefault(id(self), copy)

    def __reduce_ex__(self, protocol):
        # Of a file, the one who loads it says the device.
        return self.held.__reduce_ex__(protocol)

    def numpy(self):
        """Refused, as on a GPU."""
        raise TypeError("can't convert a tensor on a GPU to numpy; use Tensor.cpu()")

    def tolist(self):
        """Its numbers."""
        return self.held.tolist()

    def new_tensor(self, data, dtype=None):
        """Another on the same device."""
        return GpuTensor(torch.tensor(data, dtype=dtype or self.dtype))


class _OnPretendedGpu(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return compute(operation, args, kwargs or {})


def compute(operation, args, kwargs):
    """Call an operation of PyTorch on the tensors that those of its arguments hold.

    Raises
    ------
    RuntimeError
        A GPU would have refused it.
    """
    name = operation.overloadpacket.__name__
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    ours = {id(x.held): x for x in tensors if isinstance(x, GpuTensor)}
    device = kwargs.get("device")
    if ours and name not in COPIES:
        _check(name, tensors, args[0])
    if os.getpid() != OWNER and (ours or device == GPU):
        raise RuntimeError(f"{name}: cannot use a GPU in a forked process")
    if device is not None:
        kwargs = {**kwargs, "device": torch.device("cpu"), "pin_memory": None}
    held = tree_map_only(GpuTensor, lambda x: x.held, (args, kwargs))
    result = operation(*held[0], **held[1])
    there = device == GPU if device is not None else bool(ours)
    if name == "copy_":
        there = isinstance(args[0], GpuTensor)

    def give_back(x):
        return ours.get(id(x)) if id(x) in ours else GpuTensor(x) if there else x

    return tree_map_only(torch.Tensor, give_back, result)


def _check(name, tensors, first):
    alien = [x for x in tensors if not isinstance(x, GpuTensor)]
    assert all(x.device != GPU for x in alien), f"{name}: not made by compute()"
    shapes = [tuple(x.shape) for x in alien if x.dim()]
    if shapes and not (name in TAKE_CPU and isinstance(first, GpuTensor)):
        raise RuntimeError(f"{name}: {shapes} on the CPU, the rest on the GPU")
    if name.endswith("_") and any(x is first for x in alien):
        raise RuntimeError(f"{name}: changes a tensor on the CPU by one on the GPU")


class _Generator(torch.Generator):
    def __new__(cls, device="cpu"):
        return super().__new__(cls, "cpu" if torch.device(device) == GPU else device)


class _RecurrentLayers:
    """Of ``torch._VF``; PyTorch turns their output in place, which has no dispatch."""

    def __getattr__(self, name):
        run = getattr(torch._VF, name)
        return _batch_second(run) if name in ("gru", "lstm") else run


def _batch_second(run):
    def turned(x, states, weights, *options):
        # Packed sequences have no such option.
        if options[-1] is not True or not isinstance(weights, (list, tuple)):
            return run(x, states, weights, *options)
        y, *last = run(x.transpose(0, 1), states, weights, *options[:-1], False)
        return y.transpose(0, 1), *last

    return turned


def _from_data(make):
    """``torch.tensor`` or ``torch.as_tensor``, which read numbers without dispatch."""

    def on_device(data, dtype=None, device=None):
        made = make(tree_map_only(GpuTensor, lambda x: x.tolist(), data), dtype=dtype)
        return made if device is None else made.to(device)

    return on_device


@contextlib.contextmanager
def pretended_gpu():
    """Give ``"meta"`` as the device to what runs inside."""
    autocast, load = torch.autocast, torch.load

    def no_autocast(device_type, *args, **kwargs):
        if device_type == GPU.type:
            return contextlib.nullcontext()
        return autocast(device_type, *args, **kwargs)

    def of_cuda(ask):
        return lambda device="cuda": ask("cuda" if device == GPU.type else device)

    def load_here(file, map_location=None, **options):
        if map_location is None or torch.device(map_location) != GPU:
            return load(file, map_location=map_location, **options)
        loaded = load(file, map_location="cpu", **options)
        return tree_map_only(torch.Tensor, lambda x: x.to(GPU), loaded)

    modes = torch.amp.autocast_mode
    with (
        mock.patch.object(torch, "autocast", no_autocast),
        mock.patch.object(modes, "autocast", no_autocast),
        mock.patch.multiple(
            torch,
            get_autocast_dtype=of_cuda(torch.get_autocast_dtype),
            is_autocast_enabled=of_cuda(torch.is_autocast_enabled),
            tensor=_from_data(torch.tensor),
            as_tensor=_from_data(torch.as_tensor),
        ),
        mock.patch.object(torch, "Generator", _Generator),
        mock.patch.object(torch, "load", load_here),
        mock.patch.object(torch.nn.modules.rnn, "_VF", _RecurrentLayers()),
        mock.patch.object(
            importlib.import_module("torch.optim.adam"),
            "_device_dtype_check_for_fused",
            lambda *_, **__: None,
        ),
        _OnPretendedGpu(),
    ):
        yield GPU
