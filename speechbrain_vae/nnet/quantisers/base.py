"""What all quantisers share: lengths, checks, float32 and the return value."""

import torch

from speechbrain_vae.nnet.bottleneck_output import BottleneckOutput
from speechbrain_vae.nnet.distributed import sum_across
from speechbrain_vae.nnet.lengths import length_mask
from speechbrain_vae.nnet.quantisers.usage import count_codes, perplexity


class NonFiniteFramesError(ValueError):
    """Frames that hold NaN or infinity have no nearest code."""


class Quantiser(torch.nn.Module):
    """Base of the quantisers: a subclass sees valid frames only, in float32.

    A subclass implements :meth:`quantise` and :meth:`lookup` for a plain list of
    frames; padding, autocast and non-finite input are dealt with here, so that
    they are dealt with the same way everywhere. Its parameters stay in float32 when a
    model is cast to another type.

    Arguments
    ---------
    dim : int
        Size D of the frames.
    codebook_size : int
        Codes K of each group.
    groups : int
        Indices G for each frame.

    Example
    -------
    >>> class Rounding(Quantiser):
    ...     def quantise(self, x):
    ...         codes = x.round().clamp(0, self.codebook_size - 1)
    ...         return codes, codes, codes.long(), x.new_zeros(()), {}
    >>> out = Rounding(dim=1, codebook_size=4)(torch.tensor([[[0.2], [2.9]]]))
    >>> out.indices.flatten().tolist(), float(out.stats["perplexity"])
    ([0, 3], 2.0)
    """

    def __init__(self, dim: int, codebook_size: int, groups: int = 1) -> None:
        super().__init__()
        for name, value in {
            "dim": dim,
            "codebook_size": codebook_size,
            "groups": groups,
        }.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"{type(self).__name__}: {name} must be a whole number of at "
                    f"least 1; got {value!r}"
                )
        self.dim = dim
        self.codebook_size = codebook_size
        self.groups = groups

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> BottleneckOutput:
        """Quantise a batch.

        Arguments
        ---------
        x : torch.Tensor
            Frames, shape [B, T, D].
        lengths : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        BottleneckOutput
            Float32 whatever the autocast setting.

        Raises
        ------
        NonFiniteFramesError
            Where a valid frame holds NaN or infinity; in training, on all processes.
        ValueError
            Where D is not ``dim``.
        """
        # x [B, T, D]
        if x.ndim != 3 or x.shape[2] != self.dim:
            raise ValueError(
                f"{type(self).__name__}({self.extra_repr()}): expected frames of "
                f"shape [B, T, {self.dim}]; got {list(x.shape)}"
            )
        with torch.autocast(x.device.type, enabled=False):
            if lengths is None:
                places = None
                valid = x.flatten(0, 1).float()
            else:
                places = length_mask(x, lengths).flatten().nonzero().squeeze(1)
                valid = x.flatten(0, 1).index_select(0, places).float()
            # The sum is not finite if any term is not, and costs no mask.
            if not torch.isfinite(self._over_all(valid.detach().sum())):
                self._refuse_nonfinite(valid)
            latent, features, indices, loss, stats = self.quantise(valid)
        counts = count_codes(indices, self.codebook_size)
        stats = {"perplexity": perplexity(counts.float()).mean(), **stats}
        return BottleneckOutput(
            latent=self._unflatten(latent, x, places),
            features=self._unflatten(features, x, places),
            indices=self._unflatten(indices, x, places, padding=-1),
            loss=loss,
            stats=stats,
        )

    def quantise(
        self, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, dict]:
        """Quantise valid frames.

        Arguments
        ---------
        x : torch.Tensor
            Finite frames, float32, shape [N, D]; N may be 0.

        Returns
        -------
        latent : torch.Tensor
            Shape [N, D].
        features : torch.Tensor
            Shape [N, D].
        indices : torch.Tensor
            Long, shape [N, G].
        loss : torch.Tensor
            Scalar.
        stats : dict
            Detached scalars, beyond the perplexity.
        """
        raise NotImplementedError

    def lookup(self, indices: torch.Tensor) -> torch.Tensor:
        """Features of code indices.

        Arguments
        ---------
        indices : torch.Tensor
            Long, shape [..., G]; where negative (padding), the result is zero.

        Returns
        -------
        torch.Tensor
            Shape [..., D].
        """
        raise NotImplementedError

    def extra_repr(self):
        """Sizes, for ``print`` and for error messages."""
        groups = f", groups={self.groups}" if self.groups > 1 else ""
        return f"dim={self.dim}, codebook_size={self.codebook_size}{groups}"

    def _apply(self, fn, recurse=True):
        # Codes keep their type where a model is put in half or double precision, for
        # frames are compared with them in float32.
        def moved(tensor):
            result = fn(tensor)
            if result.dtype == tensor.dtype:
                return result
            return tensor.to(result.device)

        return super()._apply(moved, recurse)

    def _over_all(self, total):
        # In training all processes stop together: one that stops alone would leave
        # the others waiting for it.
        return sum_across(total) if self.training else total

    def _refuse_nonfinite(self, x):
        is_bad = (~torch.isfinite(x)).any(1)
        counts = torch.stack([is_bad.sum(), torch.ones_like(is_bad).sum()])
        bad, frames = self._over_all(counts).tolist()
        if bad == 0:
            # Finite terms whose sum overflows.
            return
        raise NonFiniteFramesError(
            f"{type(self).__name__}({self.extra_repr()}): {bad} of {frames} input "
            "frames hold NaN or infinity. The encoder has diverged or its input is "
            "broken: lower the learning rate, clip gradients, or check the features."
        )

    @staticmethod
    def _unflatten(values, x, places, padding=0):
        if places is not None:
            out = values.new_full((x.shape[0] * x.shape[1], values.shape[1]), padding)
            values = out.index_copy(0, places, values)
        return values.view(*x.shape[:2], values.shape[1])


class StraightThrough(torch.autograd.Function):
    """Codes in the forward pass, the identity in the backward pass, and the loss.

    Equation 3 of van den Oord et al. 2017 in one step, so that x + (codes - x) and
    its intermediate results are never built: the commitment term
    ``commitment * |x - sg(codes)|^2`` and, for codes that are learned by gradient,
    ``|sg(x) - codes|^2``, summed over dimensions and averaged over frames.

    Call ``StraightThrough.apply(x, codebook, indices, commitment)`` with x [N, D],
    codebook [K, D], indices [N]; it returns the codes [N, D], the loss and the mean
    squared error (both scalars).

    Example
    -------
    >>> x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    >>> codebook, index = torch.zeros(1, 2), torch.tensor([0])
    >>> codes, loss, _ = StraightThrough.apply(x, codebook, index, 0.25)
    >>> (codes.sum() + loss).backward()
    >>> codes.tolist(), loss.item(), x.grad.tolist()
    ([[0.0, 0.0]], 1.25, [[1.5, 2.0]])
    """

    @staticmethod
    def forward(ctx, x, codebook, indices, commitment):
        """See the class."""
        # x [N, D], codebook [K, D], indices [N]
        codes = codebook.index_select(0, indices)
        # Kept for the backward pass: one tensor and one pass over it, instead of
        # taking the difference again.
        difference = x - codes
        error = torch.linalg.vector_norm(difference).square() / max(len(x), 1)
        learned = ctx.needs_input_grad[1]
        ctx.commitment = commitment
        ctx.codebook_size = len(codebook) if learned else None
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(difference, indices)
        ctx.mark_non_differentiable(error)
        return codes, error * (commitment + float(learned)), error

    @staticmethod
    def backward(ctx, grad_codes, grad_loss, _):
        """Gradients of the frames and, where it is learned, of the codebook."""
        difference, indices = ctx.saved_tensors
        scale = 2 * grad_loss / max(len(difference), 1)
        grad_codebook = None
        if ctx.codebook_size is not None:
            grad_codebook = difference.new_zeros(ctx.codebook_size, difference.shape[1])
            grad_codebook.index_add_(0, indices, difference).mul_(-scale)
        grad_x = torch.addcmul(grad_codes, difference, scale * ctx.commitment)
        return grad_x, grad_codebook, None, None
