"""Gated recurrent units over whole sequences, for training on a CPU.

PyTorch has a fused kernel of the GRU on GPUs and none on CPUs, where autograd keeps
each of the ten operations of each frame, and adds up the gradient of the weights frame
by frame. Here the backward pass is written out, and frame by frame goes only what has
to. All else goes in chunks of frames that the cache of a core holds, through buffers
whose views of single frames are made once.
"""

import torch

from speechbrain_vae.nnet.double_backward import plain_gradients
from speechbrain_vae.nnet.threads import at_once

CHUNK_ROWS = 256
"""Frames of a chunk, those of all utterances counted."""


NUM_INPUTS = 5
"""What a GRU is computed of: its input, weights and biases."""


class GRUStates(torch.autograd.Function):
    """States of a GRU; differentiable twice, by the way of plain operations.

    The equations are those of :class:`torch.nn.GRU` (Cho et al. 2014), and gates in
    its order: reset, update, new. The first state is zero.

    Call ``GRUStates.apply(x, weight_ih, weight_hh, bias_ih, bias_hh)`` with x
    [T, B, C], weights [3H, C] and [3H, H] and biases [3H]. It returns states
    [T, B, H].

    Example
    -------
    >>> gru = torch.nn.GRU(8, 4)
    >>> x = torch.randn(10, 2, 8)
    >>> states = GRUStates.apply(x, *gru.all_weights[0])
    >>> torch.allclose(states, gru(x)[0], atol=1e-6)
    True
    """

    @staticmethod
    def forward(ctx, *inputs):
        """See the class."""
        states, gates = _states(*inputs)
        ctx.save_for_backward(*inputs, states, gates)
        return states[1:]

    @staticmethod
    def backward(ctx, grad):
        """Gradients of x, weights and biases."""
        return _gradients(ctx.saved_tensors, ctx.needs_input_grad, grad)


class TwoGRUStates(torch.autograd.Function):
    """States of two GRUs that do not need each other, at once.

    As :class:`GRUStates` twice, with the inputs of the second after those of the first.
    Where PyTorch has more than one thread each GRU has half of them: its products have
    too few rows for all.

    Example
    -------
    >>> one, other, x = torch.nn.GRU(8, 4), torch.nn.GRU(8, 4), torch.randn(10, 2, 8)
    >>> weights = one.all_weights[0], other.all_weights[0]
    >>> states = TwoGRUStates.apply(x, *weights[0], x.flip(0), *weights[1])
    >>> torch.allclose(states[1], other(x.flip(0))[0], atol=1e-6)
    True
    """

    @staticmethod
    def forward(ctx, *inputs):
        """See the class."""
        one, other = at_once(
            lambda: _states(*inputs[:NUM_INPUTS]),
            lambda: _states(*inputs[NUM_INPUTS:]),
        )
        ctx.save_for_backward(*inputs[:NUM_INPUTS], *one, *inputs[NUM_INPUTS:], *other)
        return one[0][1:], other[0][1:]

    @staticmethod
    def backward(ctx, *grads):
        """Gradients of both x, weights and biases."""
        saved, needed = ctx.saved_tensors, ctx.needs_input_grad
        half = len(saved) // 2
        one, other = at_once(
            lambda: _gradients(saved[:half], needed[:NUM_INPUTS], grads[0]),
            lambda: _gradients(saved[half:], needed[NUM_INPUTS:], grads[1]),
        )
        return *one, *other


def _states(x, weight_ih, weight_hh, bias_ih, bias_hh):
    """What the backward pass keeps: states, the first zero, and gates."""
    frames, batch, _ = x.shape
    size = weight_hh.shape[1]
    states = x.new_empty(frames + 1, batch, size)
    gates = x.new_empty(frames, batch, 4 * size)
    with torch.inference_mode():
        _fill_states(states, gates, x, weight_ih, weight_hh, bias_ih, bias_hh)
    return states, gates


def _gradients(saved, needed, grad):
    """Gradients of what stands in ``saved`` before states and gates."""
    *inputs, states, gates = saved
    if torch.is_grad_enabled():
        return plain_gradients(plain_states, needed, grad, *inputs)
    x = inputs[0]
    by_x = x.new_empty(x.shape) if needed[0] else None
    by_weights = [torch.zeros_like(weight) for weight in inputs[1:]]
    with torch.inference_mode():
        _fill_gradients(by_x, *by_weights, *inputs[:3], states, gates, grad)
    return by_x, *by_weights


def _fill_states(states, gates, x, weight_ih, weight_hh, bias_ih, bias_hh):
    """Compute what :class:`GRUStates` gives and keeps, into ``states`` and ``gates``.

    In inference mode an operation on single frames takes a tenth less; its results
    are of no use to autograd, and stay in the buffers of a chunk.
    """
    size = weight_hh.shape[1]
    states[0] = 0
    chunk = StatesChunk(x, size)
    # In this order a product of few rows takes two thirds of the time.
    turned = weight_hh.t().contiguous()
    bias = bias_ih.clone()
    bias[: 2 * size] += bias_hh[: 2 * size]
    for start in range(0, len(x), chunk.frames):
        rows = x[start : start + chunk.frames]
        count, stop = len(rows), start + len(rows)
        filled = chunk.gates[:count]
        own, new = filled[..., 2 * size :].chunk(2, -1)
        outer = filled.flatten(0, 1)[:, : 3 * size]
        torch.addmm(bias, rows.flatten(0, 1), weight_ih.t(), out=outer)
        new.copy_(own)
        own[:] = bias_hh[2 * size :]
        chunk.run(count, turned)
        gates[start:stop] = filled
        states[start + 1 : stop + 1] = chunk.states[1 : count + 1]


def _fill_gradients(
    by_x,
    by_ih,
    by_hh,
    by_bias_ih,
    by_bias_hh,
    x,
    weight_ih,
    weight_hh,
    states,
    gates,
    grad,
):
    """Add the gradients of weights and biases to zeros; write that of x, if wanted."""
    size = weight_hh.shape[1]
    chunk = GradientsChunk(x, size)
    for start in reversed(range(0, len(x), chunk.frames)):
        part = slice(start, min(start + chunk.frames, len(x)))
        count, before = part.stop - start, states[part]
        by_new = chunk.fill(gates[part], states[1:][part], grad[part])
        chunk.run(count, weight_hh)
        by_gates = chunk.by_gates[:count]
        rows = by_gates.flatten(0, 1).flatten(1)
        by_hh.addmm_(rows.t(), before.flatten(0, 1))
        by_bias_hh += rows.sum(0)
        # The input's side of the last gate is not reset.
        by_outer = by_gates[:, :, 2]
        torch.mul(by_new, chunk.by_states[1 : count + 1], out=by_outer)
        by_ih.addmm_(rows.t(), x[part].flatten(0, 1))
        by_bias_ih[2 * size :] += by_outer.sum((0, 1))
        if by_x is not None:
            torch.mm(rows, weight_ih, out=by_x[part].flatten(0, 1))
    by_bias_ih[: 2 * size] = by_bias_hh[: 2 * size]


def chunk_frames(frames, batch):
    """Number of frames of a chunk.

    Example
    -------
    >>> chunk_frames(100, 8), chunk_frames(10, 8), chunk_frames(100, 1000)
    (32, 10, 1)
    """
    return min(frames, max(1, CHUNK_ROWS // batch))


class StatesChunk:
    """Buffers for the states of a chunk of frames.

    Arguments
    ---------
    x : torch.Tensor
        What the whole sequence is computed of, shape [T, B, C].
    size : int
        Size H of a state.

    Example
    -------
    >>> chunk = StatesChunk(torch.ones(5, 1, 3), 2)
    >>> chunk.gates[:] = torch.tensor([0.0] * 6 + [1e9] * 2)
    >>> chunk.run(5, torch.zeros(2, 6))
    >>> chunk.states[:3, 0, 0]
    tensor([0.9688, 0.5000, 0.7500])
    """

    def __init__(self, x, size):
        batch = x.shape[1]
        self.frames = chunk_frames(len(x), batch)
        # Of each frame: reset, update, the state's part of new, and new.
        self.gates = x.new_empty(self.frames, batch, 4 * size)
        self.states = x.new_zeros(self.frames + 1, batch, size)
        inner, both = self.gates[..., : 3 * size], self.gates[..., : 2 * size]
        buffers = inner, both, *self.gates.chunk(4, -1), self.states
        *gates, states = (buffer.unbind() for buffer in buffers)
        self.views = *gates, states[:-1], states[1:]

    def run(self, count, weight):
        """Replace what the input gives to ``count`` frames by gates and states.

        Arguments
        ---------
        count : int
        weight : torch.Tensor
            That states are multiplied by, shape [H, 3H].
        """
        views = zip(*(view[:count] for view in self.views), strict=True)
        for inner, both, reset, update, own, new, before, after in views:
            inner.addmm_(before, weight)
            both.sigmoid_()
            new.addcmul_(reset, own).tanh_()
            torch.lerp(new, before, update, out=after)
        # The next chunk goes on from here.
        self.states[0] = self.states[count]


class GradientsChunk:
    """Buffers for the gradients of a chunk of frames, the last chunk first.

    Arguments
    ---------
    x : torch.Tensor
        What the whole sequence is computed of, shape [T, B, C].
    size : int
        Size H of a state.

    Example
    -------
    >>> chunk = GradientsChunk(torch.ones(5, 1, 3), 2)
    >>> gates, states = torch.full((5, 1, 8), 0.5), torch.full((5, 1, 2), 0.25)
    >>> _ = chunk.fill(gates, states, grad=torch.ones(5, 1, 2))
    >>> chunk.run(5, torch.zeros(6, 2))
    >>> chunk.by_states[1:, 0, 0]
    tensor([1.9375, 1.8750, 1.7500, 1.5000, 1.0000])
    """

    def __init__(self, x, size):
        batch = x.shape[1]
        self.frames = chunk_frames(len(x), batch)
        self.by_gates = x.new_empty(self.frames, batch, 3, size)
        self.update = x.new_empty(self.frames, batch, size)
        self.by_states = x.new_zeros(self.frames + 1, batch, size)
        gates = self.by_gates, self.by_gates.flatten(-2), self.update
        buffers = *gates, self.by_states[1:, :, None], self.by_states
        *others, states = (buffer.unbind() for buffer in buffers)
        self.views = *others, states[:-1], states[1:]

    def fill(self, gates, states, grad):
        """Take a chunk.

        Arguments
        ---------
        gates : torch.Tensor
            Reset, update, the state's part of new, and new, shape [T, B, 4H].
        states : torch.Tensor
            Shape [T, B, H].
        grad : torch.Tensor
            Gradient of the loss by the states, shape [T, B, H].

        Returns
        -------
        torch.Tensor
            Derivative of each state by the input's part of new, shape [T, B, H].
        """
        count = len(gates)
        torch.add(self.by_states[0], grad[-1], out=self.by_states[count])
        self.by_states[1:count] = grad[:-1]
        self.by_states[0] = 0
        reset, update, own, new = gates.chunk(4, -1)
        by_reset, by_update, by_own = self.by_gates[:count].unbind(-2)
        self.update[:count] = update
        fresh = 1 - update
        by_new = torch.addcmul(fresh, fresh, new.square(), value=-1)
        torch.mul(by_new, reset, out=by_own)
        torch.mul(by_own, torch.addcmul(own, own, reset, value=-1), out=by_reset)
        # (before - new) * update * fresh, as a state is new + (before - new) * update.
        torch.mul(fresh, states - new, out=by_update)
        return by_new

    def run(self, count, weight):
        """Replace derivatives of states by the gradients of gates and states.

        Arguments
        ---------
        count : int
        weight : torch.Tensor
            ``weight_hh``, shape [3H, H].
        """
        views = zip(*(reversed(view[:count]) for view in self.views), strict=True)
        for gates, row, update, column, before, after in views:
            gates.mul_(column)
            before.addcmul_(after, update).addmm_(row, weight)


def plain_states(x, weight_ih, weight_hh, bias_ih, bias_hh):
    """The states of :class:`GRUStates` by operations that autograd knows.

    Example
    -------
    >>> gru, x = torch.nn.GRU(8, 4), torch.randn(10, 2, 8)
    >>> torch.allclose(plain_states(x, *gru.all_weights[0]), gru(x)[0], atol=1e-6)
    True
    """
    states = [x.new_zeros(x.shape[1], weight_hh.shape[1])]
    for outer in torch.nn.functional.linear(x, weight_ih, bias_ih):
        r, z, n = outer.chunk(3, -1)
        inner = torch.addmm(bias_hh, states[-1], weight_hh.t())
        inner_r, inner_z, inner_n = inner.chunk(3, -1)
        new = torch.tanh(n + torch.sigmoid(r + inner_r) * inner_n)
        states.append(torch.lerp(new, states[-1], torch.sigmoid(z + inner_z)))
    return torch.stack(states[1:])


class GRU(torch.nn.GRU):
    """:class:`torch.nn.GRU`, trained in half the time where that is on a CPU.

    Only for a single layer of one direction in fp32 or fp64, in batches: everything
    else, and inference, is the way of PyTorch.

    Example
    -------
    >>> gru = GRU(8, 4, batch_first=True)
    >>> states, last = gru(torch.randn(2, 10, 8))
    >>> states.shape, last.shape
    (torch.Size([2, 10, 4]), torch.Size([1, 2, 4]))
    """

    def forward(self, input, hx=None):  # noqa: A002
        """See :class:`torch.nn.GRU`."""
        if hx is not None or not self._writes_out(input):
            return super().forward(input, hx)
        states = GRUStates.apply(*self._inputs(input))
        last = states[-1:]
        return states.transpose(0, 1) if self.batch_first else states, last

    def _inputs(self, x):
        x = x.transpose(0, 1) if self.batch_first else x
        return x, *self.all_weights[0]

    def _writes_out(self, x):
        return (
            not torch.compiler.is_compiling()
            and torch.is_grad_enabled()
            and isinstance(x, torch.Tensor)
            and x.dim() == 3
            and x.shape[2] == self.input_size
            and x.numel() > 0
            and x.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and self.num_layers == 1
            and self.bias
            and x.dtype == self.bias_hh_l0.dtype
            and x.dtype in (torch.float32, torch.float64)
            and not self.bidirectional
        )


def two_outputs(one, other, x, y):
    """What two recurrent layers give; on a CPU, at once.

    In training only GRUs are computed at once, and their forward hooks are not called.

    Arguments
    ---------
    one, other : torch.nn.Module
        Recurrent layers, batch first.
    x, y : torch.Tensor
        Their inputs, each [B, T, C].

    Returns
    -------
    tuple of torch.Tensor
        Each [B, T, H].

    Example
    -------
    >>> one, other = (GRU(8, 4, batch_first=True) for _ in range(2))
    >>> x, y = torch.randn(2, 10, 8), torch.randn(2, 10, 8)
    >>> states, _ = two_outputs(one, other, x, y)
    >>> torch.equal(states, one(x)[0])
    True
    """
    layers = (one, x), (other, y)
    if all(isinstance(rnn, GRU) and rnn._writes_out(z) for rnn, z in layers):
        inputs = (each for rnn, z in layers for each in rnn._inputs(z))
        return tuple(z.transpose(0, 1) for z in TwoGRUStates.apply(*inputs))
    infers = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    if infers and x.device.type == "cpu":
        return at_once(lambda: one(x)[0], lambda: other(y)[0])
    return one(x)[0], other(y)[0]
