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

    Sizes come from a YAML that somebody else wrote; a tensor too many is refused
    before its memory is taken.

    Arguments
    ---------
    limit : int
        Bytes of all tensors together that are made inside the context.

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

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in _FACTORIES:
            # On the meta device a tensor has a size and no memory.
            options = {k: v for k, v in kwargs.items() if k not in ("generator", "out")}
            shape = func(*args, **{**options, "device": "meta", "pin_memory": False})
            self.bytes += shape.numel() * shape.element_size() + _OVERHEAD
            if self.bytes > self.limit:
                raise MemoryError(
                    f"the model takes more than the {self.limit / 1e6:.0f} MB that "
                    "were expected"
                )
        return func(*args, **kwargs)
