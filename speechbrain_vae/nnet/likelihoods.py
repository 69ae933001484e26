"""Likelihoods of a frame given the decoder's output."""

import math

import torch

VARIANCES = ("fixed", "global", "bin", "predicted")


class GaussianLikelihood(torch.nn.Module):
    """Diagonal Gaussian likelihood (Kingma and Welling 2014, appendix C.2).

    Arguments
    ---------
    size : int
        Number of bins F of a frame.
    variance : str
        ``"fixed"``: the given ``value``; ``"global"``: one learned number;
        ``"bin"``: one learned number a bin; ``"predicted"``: one a bin and frame,
        from the decoder.
    value : float
        The variance, or where a learned one starts.
    min_variance : float
        Floor of the variance. It bounds the density of frames that a decoder can
        predict exactly, such as digital silence.

    Example
    -------
    >>> likelihood = GaussianLikelihood(80, variance="bin")
    >>> nll = likelihood(torch.zeros(2, 10, 80), torch.zeros(2, 10, 80))
    >>> nll.shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        size: int,
        variance: str = "bin",
        value: float = 1.0,
        min_variance: float = 1e-4,
    ) -> None:
        super().__init__()
        if variance not in VARIANCES:
            raise ValueError(
                f"variance must be one of {', '.join(VARIANCES)}; got {variance!r}"
            )
        if not value >= min_variance > 0:
            raise ValueError(
                "value must be at least min_variance and both positive; got "
                f"value={value}, min_variance={min_variance}"
            )
        self.size = size
        self.variance = variance
        self.prediction_size = 2 * size if variance == "predicted" else size
        self.min_logvar = math.log(min_variance)
        logvar = torch.full((size if variance == "bin" else 1,), math.log(value))
        if variance in ("global", "bin"):
            self.logvar = torch.nn.Parameter(logvar)
        else:
            self.register_buffer("logvar", logvar)

    def parameters_of(self, prediction: torch.Tensor):
        """Mean and log-variance, each broadcastable to [B, T, F].

        Arguments
        ---------
        prediction : torch.Tensor
            The decoder's output, shape [B, T, prediction_size].

        Returns
        -------
        tuple of torch.Tensor
        """
        if self.variance == "predicted":
            mean, logvar = prediction.chunk(2, dim=-1)
            logvar = logvar + self.logvar
        else:
            mean, logvar = prediction, self.logvar
        return mean, logvar.clamp(min=self.min_logvar)

    def mean(self, prediction: torch.Tensor) -> torch.Tensor:
        """The reconstruction [B, T, F]."""
        return self.parameters_of(prediction)[0]

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood in nats per frame, shape [B, T]."""
        mean, logvar = self.parameters_of(prediction.float())
        squared = (target - mean) ** 2 * torch.exp(-logvar)
        return 0.5 * (squared + logvar + math.log(2 * math.pi)).sum(-1)

    @torch.no_grad()
    def start_at(self, variance):
        """Start a learned variance at this number."""
        if self.variance != "fixed":
            self.logvar.fill_(max(math.log(variance), self.min_logvar))


class LaplaceLikelihood(torch.nn.Module):
    """Laplace likelihood with a fixed or a learned scale a bin.

    Its negative log-likelihood is the absolute error, up to a scale.

    Arguments
    ---------
    size : int
        Number of bins F of a frame.
    learned : bool
        Whether each bin learns its scale.
    value : float
        The scale, or where a learned one starts.

    Example
    -------
    >>> likelihood = LaplaceLikelihood(80)
    >>> likelihood(torch.zeros(2, 10, 80), torch.zeros(2, 10, 80)).shape
    torch.Size([2, 10])
    """

    MIN_SCALE = 1e-2

    def __init__(self, size: int, learned: bool = True, value: float = 1.0) -> None:
        super().__init__()
        if not value >= self.MIN_SCALE:
            raise ValueError(f"value must be at least {self.MIN_SCALE}; got {value}")
        self.size = size
        self.prediction_size = size
        log_scale = torch.full((size,), math.log(value))
        if learned:
            self.log_scale = torch.nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    def mean(self, prediction: torch.Tensor) -> torch.Tensor:
        """The reconstruction [B, T, F]."""
        return prediction

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Negative log-likelihood in nats per frame, shape [B, T]."""
        log_scale = self.log_scale.clamp(min=math.log(self.MIN_SCALE))
        distance = (target - prediction.float()).abs() * torch.exp(-log_scale)
        return (distance + log_scale + math.log(2)).sum(-1)
