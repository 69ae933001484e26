"""Gated recurrent units over whole sequences, for training on a CPU.

PyTorch has a fused kernel of the GRU on GPUs and none on CPUs, where autograd keeps
each of the ten operations of each frame, and adds up the gradient of the weights frame
by frame. Here the backward pass is written out: frame by frame goes only what has to,
and the gradient of the weights is one product at the end.
"""

import torch

from speechbrain_vae.nnet.double_backward import plain_gradients


class GRURecurrence(torch.autograd.Function):
    """States of a GRU from what its input adds to the gates.

    The equations are those of :class:`torch.nn.GRU` (Cho et al. 2014), and gates in
    its order: reset, update, new. The first state is zero.

    Call ``GRURecurrence.apply(gates, weight, bias)`` with gates [T, B, 3H] (the product
    of ``weight_ih`` and the input, and ``bias_ih``), weight [3H, H] (``weight_hh``) and
    bias [3H] (``bias_hh``). It returns states [T, B, H]. It is differentiable twice, by
    the way of plain operations.

    Example
    -------
    >>> gru = torch.nn.GRU(8, 4)
    >>> x = torch.randn(10, 2, 8)
    >>> gates = torch.nn.functional.linear(x, gru.weight_ih_l0, gru.bias_ih_l0)
    >>> states = GRURecurrence.apply(gates, gru.weight_hh_l0, gru.bias_hh_l0)
    >>> torch.allclose(states, gru(x)[0], atol=1e-6)
    True
    """

    @staticmethod
    def forward(ctx, gates, weight, bias):
        """See the class."""
        frames, batch, width = gates.shape
        size = width // 3
        states = gates.new_zeros(frames + 1, batch, size)
        new = gates.new_empty(frames, batch, size)
        # All that does not wait for a state; the products with states are added.
        inner = bias.expand_as(gates).clone()
        inner[..., : 2 * size] += gates[..., : 2 * size]
        # In this order a product of few rows takes two thirds of the time.
        turned = weight.t().contiguous()
        state, own, n = states.unbind(), inner.unbind(), new.unbind()
        both = inner[..., : 2 * size].unbind()
        reset, update, inner_n = (gate.unbind() for gate in inner.chunk(3, -1))
        outer_n = gates[..., 2 * size :].unbind()
        for t in range(frames):
            own[t].addmm_(state[t], turned)
            both[t].sigmoid_()
            torch.addcmul(outer_n[t], reset[t], inner_n[t], out=n[t]).tanh_()
            torch.lerp(n[t], state[t], update[t], out=state[t + 1])
        ctx.save_for_backward(gates, weight, bias, states, inner, new)
        return states[1:]

    @staticmethod
    def backward(ctx, grad):
        """Gradients of gates, weight and bias."""
        gates, weight, bias, states, inner, new = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = gates, weight, bias
            return plain_gradients(
                plain_recurrence, ctx.needs_input_grad, grad, *inputs
            )
        before = states[:-1]
        reset, update, inner_n = inner.chunk(3, -1)
        # Derivatives of a state by the inner side of its gates, times that of the loss
        # by the state once it is known.
        by_new = (1 - update) * (1 - new.square())
        by_gates = torch.empty_like(gates).unflatten(-1, (3, -1))
        by_reset, by_update, by_inner = by_gates.unbind(-2)
        torch.mul(by_new, reset, out=by_inner)
        torch.mul(by_inner, (1 - reset) * inner_n, out=by_reset)
        torch.mul(update * (1 - update), before - new, out=by_update)
        rows = by_gates.flatten(-2)
        by_state = grad.clone(memory_format=torch.contiguous_format)
        here, column = by_state.unbind(), by_state.unsqueeze(-2).unbind()
        factor, row, kept = by_gates.unbind(), rows.unbind(), update.unbind()
        for t in reversed(range(len(gates))):
            factor[t].mul_(column[t])
            if t > 0:
                here[t - 1].addcmul_(here[t], kept[t]).addmm_(row[t], weight)
        by_weight = rows.flatten(0, 1).t() @ before.flatten(0, 1)
        by_bias = rows.sum((0, 1))
        # The outer side of the last gate is not reset.
        torch.mul(by_state, by_new, out=by_inner)
        return rows, by_weight, by_bias


def plain_recurrence(gates, weight, bias):
    """The states of :class:`GRURecurrence` by operations that autograd knows.

    Example
    -------
    >>> inputs = torch.randn(10, 2, 12), torch.randn(12, 4), torch.randn(12)
    >>> states = GRURecurrence.apply(*inputs)
    >>> torch.allclose(plain_recurrence(*inputs), states, atol=1e-6)
    True
    """
    states = [gates.new_zeros(gates.shape[1], weight.shape[1])]
    for outer in gates:
        r, z, n = outer.chunk(3, -1)
        inner = torch.addmm(bias, states[-1], weight.t())
        inner_r, inner_z, inner_n = inner.chunk(3, -1)
        new = torch.tanh(n + torch.sigmoid(r + inner_r) * inner_n)
        states.append(torch.lerp(new, states[-1], torch.sigmoid(z + inner_z)))
    return torch.stack(states[1:])


class GRU(torch.nn.GRU):
    """:class:`torch.nn.GRU`, trained in half the time where that is on a CPU.

    Only for a single layer of one direction in fp32, in batches: everything else, and
    inference, is the way of PyTorch.

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
        weight_ih, weight_hh, bias_ih, bias_hh = self.all_weights[0]
        x = input.transpose(0, 1) if self.batch_first else input
        gates = torch.nn.functional.linear(x, weight_ih, bias_ih)
        states = GRURecurrence.apply(gates, weight_hh, bias_hh)
        last = states[-1:]
        return states.transpose(0, 1) if self.batch_first else states, last

    def _writes_out(self, x):
        return (
            torch.is_grad_enabled()
            and isinstance(x, torch.Tensor)
            and x.dim() == 3
            and x.device.type == "cpu"
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
            and self.num_layers == 1
            and self.bias
            and not self.bidirectional
        )
