"""Binary codes."""

import math

import torch

from speechbrain_vae.nnet.distributed import mean_over_frames
from speechbrain_vae.nnet.quantisers.base import Quantiser


class BinaryQuantizer(Quantiser):
    """log2(K) bits of -1 or +1 a frame, with a straight-through gradient.

    A linear map takes frames from ``dim`` to log2(K) numbers h, and another takes the
    bits back to ``dim``, both learned; where ``dim`` is log2(K) there is neither.
    Each h becomes a bit (Bengio, Léonard, Courville 2013):

    - "sign": its sign; the gradient is the identity where |h| <= 1 and zero elsewhere
      (Courbariaux et al. 2016),
    - "bernoulli": +1 with probability sigmoid(2h), the sign in evaluation; the gradient
      is that of the mean, tanh(h) (Raiko et al. 2015).

    The loss is ``commitment * |h - sg(b)|^2``, summed over bits and averaged over valid
    frames, which holds h near the bits ("sign" only), plus ``diversity`` times the
    entropy, in nats, that the average bits (of all DDP processes) lack of being as
    often -1 as +1.

    Arguments
    ---------
    dim : int
        Size D of the frames and of the output.
    codebook_size : int
        Codes K: a power of two, at least 2 and at most 2**20.
    mode : str
        "sign" or "bernoulli".
    commitment : float
        Weight of the commitment loss.
    diversity : float
        Weight of the entropy term.

    Example
    -------
    >>> quantiser = BinaryQuantizer(dim=8, codebook_size=16)
    >>> out = quantiser(torch.randn(4, 50, 8), torch.tensor([1.0, 1.0, 0.5, 0.5]))
    >>> out.latent.shape, int(out.indices.max()) < 16
    (torch.Size([4, 50, 8]), True)
    """

    MODES = ("sign", "bernoulli")
    MAX_BITS = 20

    places: torch.Tensor

    def __init__(
        self,
        dim: int,
        codebook_size: int,
        mode: str = "sign",
        commitment: float = 0.25,
        diversity: float = 1.0,
    ) -> None:
        super().__init__(dim, codebook_size)
        bits = codebook_size.bit_length() - 1
        if bits < 1 or codebook_size != 2**bits:
            raise ValueError(
                "codebook_size must be a power of two, at least 2, as codes are "
                f"binary; got {codebook_size}"
            )
        if bits > self.MAX_BITS:
            raise ValueError(
                f"codebook_size must be at most 2**{self.MAX_BITS}, as each code is "
                f"counted; got 2**{bits}: for more bits take ProductQuantizer"
            )
        if mode not in self.MODES:
            raise ValueError(
                f"mode must be one of {', '.join(self.MODES)}; got {mode!r}"
            )
        for name, value in {"commitment": commitment, "diversity": diversity}.items():
            if value < 0:
                raise ValueError(f"{name} must not be negative; got {value}")
        self.bits = bits
        self.mode = mode
        self.commitment = commitment
        self.diversity = diversity
        narrow = dim == bits
        self.to_bits = torch.nn.Identity() if narrow else torch.nn.Linear(dim, bits)
        self.from_bits = torch.nn.Identity() if narrow else torch.nn.Linear(bits, dim)
        self.register_buffer("places", 2 ** torch.arange(bits), persistent=False)

    def quantise(self, x: torch.Tensor):
        """See :meth:`Quantiser.quantise`."""
        # x [N, D]
        hidden = self.to_bits(x)
        mean = hidden.tanh()
        sign = _sign(hidden.detach())
        if self.mode == "sign":
            bits, through = sign, torch.nn.functional.hardtanh(hidden)
        else:
            bits, through = sign, mean
            if self.training:
                bits = _sign((1 + mean.detach()) / 2 - torch.rand_like(mean))
        frames = max(len(x), 1)
        loss = self.diversity * self._missing_entropy(mean)
        if self.mode == "sign":
            commitment = (hidden - bits).square().sum() / frames
            loss = loss + self.commitment * commitment
        latent = self.from_bits(bits + through - through.detach())
        features = self.from_bits(sign) if bits is not sign else latent
        indices = ((bits > 0) * self.places).sum(1, keepdim=True)
        return latent, features, indices, loss, {}

    def lookup(self, indices: torch.Tensor):
        """See :meth:`Quantiser.lookup`."""
        # [..., 1] -> [..., bits]
        bits = (indices.bitwise_and(self.places) > 0).to(torch.float32) * 2 - 1
        return self.from_bits(bits).masked_fill(indices < 0, 0)

    def _missing_entropy(self, mean):
        # mean [N, bits] of the bits, between -1 and 1: zero where there are no frames.
        frames = mean.new_tensor(len(mean))
        mean = mean_over_frames(mean.sum(0), frames, self.training)
        up = ((1 + mean) / 2).clamp(1e-6, 1 - 1e-6)
        entropy = -(up * up.log() + (1 - up) * (1 - up).log())
        return (math.log(2) - entropy).sum()


def _sign(x):
    # torch.sign gives 0 at 0, which is no bit.
    return torch.where(x < 0, -1.0, 1.0)
