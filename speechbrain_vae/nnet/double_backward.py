"""Second derivatives of what has a backward pass of its own."""

import contextlib

import torch


@contextlib.contextmanager
def without_cudnn():
    """Compute without cuDNN, whose recurrent layers have no second derivatives.

    Example
    -------
    >>> with without_cudnn():
    ...     torch.backends.cudnn.enabled
    False
    """
    before = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        yield
    finally:
        torch.backends.cudnn.enabled = before


def plain_gradients(plain, needed, grad, *inputs):
    """The gradients of the inputs that need one, by operations that autograd knows.

    Arguments
    ---------
    plain : callable
        What was computed, of the same inputs, by operations that autograd knows.
    needed : tuple of bool
        For each input, whether it needs a gradient.
    grad : torch.Tensor
        Gradient of the loss by the result.
    *inputs : torch.Tensor

    Returns
    -------
    tuple of torch.Tensor or None
        One for each input.

    Example
    -------
    >>> x, factor = torch.ones(2, requires_grad=True), torch.tensor(3.0)
    >>> plain_gradients(torch.mul, (True, False), torch.ones(2), x, factor)
    (tensor([3., 3.]), None)
    """
    given = [x for x, wanted in zip(inputs, needed, strict=True) if wanted]
    grads = iter(torch.autograd.grad(plain(*inputs), given, grad, create_graph=True))
    return tuple(next(grads) if wanted else None for wanted in needed)
