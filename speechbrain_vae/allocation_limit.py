"""A bound on the memory that the constructors of a model ask for."""

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = {
    torch.empty,
    torch.zeros,
    torch.ones,
    torch.full,
    torch.rand,
    torch.randn,
    torch.randint,
    torch.randperm,
    torch.arange,
    torch.linspace,
    torch.eye,
    torch.hamming_window,
    torch.hann_window,
}
_OVERHEAD = 8192
"""Bytes that a tensor and its part of a module cost beside the numbers."""


class AllocationLimit(TorchFunctionMode):
    """Refuse to make more tensors than fit into a number of bytes.

    Sizes come from a YAML that somebody else wrote. Functions that make tensors of
    sizes, and copies, are refused one too many before its memory is taken; what others
    made is found when it is there, what NumPy or ``torch.FloatTensor`` made by
    :meth:`count`.

    Arguments
    ---------
    limit : int
        Bytes of all tensors together that are made inside the context, and of all
        that are counted.

    Example
    -------
    >>> with AllocationLimit(10**6):
    ...     _ = torch.nn.Linear(100, 100)
    >>> with AllocationLimit(10**6):
    ...     _ = torch.nn.Linear(10**6, 10**6)
    Traceback (most recent call last):
      ...
    MemoryError: the model takes more than the 1 MB that were expected
    """

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.bytes = 0
        self.counted = {}
        self.counted_bytes = 0

    def count(self, module: torch.nn.Module):
        """Refuse a module if its tensors and those counted before are too many.

        Arguments
        ---------
        module : torch.nn.Module
            That was built; what it shares with others counts once.

        Example
        -------
        >>> AllocationLimit(10**6).count(torch.nn.Linear(1000, 1000))
        Traceback (most recent call last):
          ...
        MemoryError: the model takes more than the 1 MB that were expected
        """
        for tensor in (*module.parameters(), *module.buffers()):
            if id(tensor) not in self.counted:
                self.counted[id(tensor)] = tensor
                self.counted_bytes += _size(tensor)
        self._check(self.counted_bytes)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _FACTORIES:
            # On the meta device a tensor has a size and no memory.
            options = {k: v for k, v in kwargs.items() if k not in ("generator", "out")}
            shape = func(*args, **{**options, "device": "meta", "pin_memory": False})
            self._add(shape)
        elif func is torch.Tensor.clone:
            self._add(args[0])
        made = func(*args, **kwargs)
        if isinstance(made, torch.Tensor):
            self._check(_size(made))
        return made

    def _add(self, tensor):
        self.bytes += _size(tensor) + _OVERHEAD
        self._check(self.bytes)

    def _check(self, taken):
        if taken > self.limit:
            raise MemoryError(
                f"the model takes more than the {self.limit / 1e6:.0f} MB that "
                "were expected"
            )


def _size(tensor):
    return tensor.numel() * tensor.element_size()
