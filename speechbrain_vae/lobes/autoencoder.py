"""The autoencoder: encoder, bottleneck, decoder, likelihood and target."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from speechbrain_vae.lobes.targets import Reconstruction
from speechbrain_vae.metrics import mean_error
from speechbrain_vae.nnet.bottleneck_output import BottleneckOutput
from speechbrain_vae.nnet.double_backward import without_cudnn
from speechbrain_vae.nnet.lengths import cut, length_mask


@dataclass
class AutoencoderOutput:
    """What one call of :class:`Autoencoder` gives.

    Arguments
    ---------
    loss : torch.Tensor
        Scalar, in nats per target frame: reconstruction plus the bottleneck's loss,
        in training also the penalties.
    reconstruction_loss : torch.Tensor
        Scalar: negative log-likelihood in nats per target frame.
    frames : torch.Tensor
        Number of target frames that counted.
    latent_frames : torch.Tensor
        Number of valid latent frames.
    squared_error : torch.Tensor
        Mean squared error of the predicted mean, per bin, detached.
    bottleneck : BottleneckOutput
    penalties : dict
        Detached scalars by name of the penalty's class; empty in evaluation.
    """

    loss: torch.Tensor
    reconstruction_loss: torch.Tensor
    frames: torch.Tensor
    latent_frames: torch.Tensor
    squared_error: torch.Tensor
    bottleneck: BottleneckOutput
    penalties: dict[str, torch.Tensor] = field(default_factory=dict)


class Autoencoder(torch.nn.Module):
    """Any encoder, bottleneck, decoder, likelihood and target, put together.

    Arguments
    ---------
    encoder : torch.nn.Module
        See :mod:`speechbrain_vae.lobes.encoders`.
    bottleneck : torch.nn.Module
        See :mod:`speechbrain_vae.lobes.bottlenecks`.
    decoder : torch.nn.Module
        See :mod:`speechbrain_vae.lobes.decoders`.
    likelihood : torch.nn.Module
        See :mod:`speechbrain_vae.nnet.likelihoods`.
    target : torch.nn.Module, optional
        See :mod:`speechbrain_vae.lobes.targets`; the input itself by default.
    penalties : list of torch.nn.Module
        See :mod:`speechbrain_vae.lobes.penalties`; terms of the training loss alone.
    piece_frames : int
        In training, most frames of a sequence: utterances are cut into pieces, which a
        recurrent layer reads side by side. 0 leaves them whole.

    Example
    -------
    >>> from speechbrain_vae.lobes.bottlenecks import GaussianBottleneck
    >>> from speechbrain_vae.lobes.decoders import ConvDecoder
    >>> from speechbrain_vae.lobes.encoders import ConvEncoder
    >>> from speechbrain_vae.nnet.likelihoods import GaussianLikelihood
    >>> vae = Autoencoder(
    ...     ConvEncoder(80, channels=32),
    ...     GaussianBottleneck(32, 16),
    ...     ConvDecoder(16, 80, channels=32),
    ...     GaussianLikelihood(80),
    ... )
    >>> out = vae(torch.randn(2, 101, 80), torch.tensor([1.0, 0.5]))
    >>> int(out.frames), int(out.latent_frames)
    (151, 76)
    """

    def __init__(
        self,
        encoder: torch.nn.Module,
        bottleneck: torch.nn.Module,
        decoder: torch.nn.Module,
        likelihood: torch.nn.Module,
        target: torch.nn.Module | None = None,
        penalties: Sequence[torch.nn.Module] = (),
        piece_frames: int = 0,
    ) -> None:
        super().__init__()
        if decoder.stride != encoder.stride:
            raise ValueError(
                f"encoder and decoder must have one stride; got {encoder.stride} "
                f"and {decoder.stride}"
            )
        if decoder.output_size != likelihood.prediction_size:
            raise ValueError(
                f"the decoder gives {decoder.output_size} numbers a frame, the "
                f"likelihood needs output_size={likelihood.prediction_size}"
            )
        if piece_frames and piece_frames < encoder.stride:
            raise ValueError(
                f"piece_frames must be 0 or at least the stride of {encoder.stride}; "
                f"got {piece_frames}"
            )
        self.encoder = encoder
        self.bottleneck = bottleneck
        self.decoder = decoder
        self.likelihood = likelihood
        self.target = target or Reconstruction()
        self.penalties = torch.nn.ModuleList(penalties)
        self.piece_frames = piece_frames

    @property
    def latent_size(self):
        """Size D of the features."""
        return self.bottleneck.latent_size

    @property
    def stride(self):
        """Input frames for one latent frame."""
        return self.encoder.stride

    def forward(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> AutoencoderOutput:
        """The training loss and what it is made of.

        Arguments
        ---------
        feats : torch.Tensor
            Normalised features, shape [B, T, F].
        lengths : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        AutoencoderOutput
        """
        if self.training and self.piece_frames:
            feats, lengths = cut(feats, lengths, self.piece_frames, self.stride)
        inputs, target, mask = self.target(feats, lengths)
        penalised = bool(self.training and torch.is_grad_enabled() and self.penalties)
        if penalised and not inputs.requires_grad:
            inputs = inputs.detach().requires_grad_()
        with self._differentiable(penalised):
            code, code_lengths = self.encode(inputs, lengths)
        prediction = self.decoder(code.latent, code_lengths, feats.shape[1])
        frames = mask.sum().clamp(min=1)
        latent_frames = length_mask(code.latent, code_lengths).sum()
        nll = (self.likelihood(prediction, target) * mask).sum() / frames
        mean = self.likelihood.mean(prediction).detach().float()
        loss = nll + code.loss * (latent_frames / frames)
        penalties = {}
        for penalty in self.penalties if penalised else ():
            value = penalty(self, inputs, lengths, code)
            loss = loss + value
            penalties[type(penalty).__name__] = value.detach()
        return AutoencoderOutput(
            loss=loss,
            reconstruction_loss=nll,
            frames=frames,
            latent_frames=latent_frames,
            squared_error=mean_error(mean, target, mask),
            bottleneck=code,
            penalties=penalties,
        )

    def _differentiable(self, penalised):
        """Context in which the encoder has the derivatives that penalties need."""
        twice = any(
            getattr(each, "second_derivatives", False) for each in self.penalties
        )
        return without_cudnn() if penalised and twice else contextlib.nullcontext()

    def encode(
        self, feats: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> tuple[BottleneckOutput, torch.Tensor | None]:
        """The bottleneck's output and the relative lengths [B] of its frames."""
        hidden = self.encoder(feats, lengths)
        code_lengths = self.encoder.output_lengths(feats, lengths)
        return self.bottleneck(hidden, code_lengths), code_lengths

    def decode(
        self,
        latent: torch.Tensor,
        lengths: torch.Tensor | None = None,
        frames: int | None = None,
    ) -> torch.Tensor:
        """The mean frames [B, frames, F] of latents [B, T, D]."""
        return self.likelihood.mean(self.decoder(latent, lengths, frames))

    def warm_start(self, donor: "Autoencoder") -> None:
        """Take over the encoder and the decoder of a trained model.

        Arguments
        ---------
        donor : Autoencoder
            With any bottleneck, of parts of the same sizes.

        Raises
        ------
        ValueError
            The parts do not fit; the message names the first weight that does not.
        """
        for name in ("encoder", "decoder"):
            ours, theirs = getattr(self, name), getattr(donor, name).state_dict()
            expected = {key: value.shape for key, value in ours.state_dict().items()}
            given = {key: value.shape for key, value in theirs.items()}
            for key in sorted(expected.keys() | given.keys()):
                if expected.get(key) != given.get(key):
                    raise ValueError(
                        f"init_from: the {name} of that export does not fit: {key} is "
                        f"{_size(given.get(key))} there and {_size(expected.get(key))} "
                        "here; set the sizes of the YAML to those of the export"
                    )
            ours.load_state_dict(theirs)

    def start_linear(self, ppca):
        """Start as the linear VAE that equals probabilistic PCA.

        Training then goes on from the optimal linear model, instead of towards it.

        Arguments
        ---------
        ppca : speechbrain_vae.nnet.ppca.PPCA
            Fitted to windows of ``stride`` frames of the training set.
        """
        for part in (self.encoder, self.bottleneck, self.decoder, self.likelihood):
            if not (hasattr(part, "start_linear") or hasattr(part, "start_at")):
                raise ValueError(
                    f"linear_start is not defined for {type(part).__name__}; "
                    "set linear_start: False"
                )
        if self.latent_size >= ppca.values.numel():
            raise ValueError(
                f"a linear start needs a latent_size below {ppca.values.numel()} "
                f"(stride * n_mels); got {self.latent_size}; set linear_start: False"
            )
        analysis, logvar, synthesis, noise = ppca.linear_vae(self.latent_size)
        self.encoder.start_linear()
        self.bottleneck.start_linear(analysis, logvar)
        self.decoder.start_linear(synthesis)
        self.likelihood.start_at(noise)


def _size(shape):
    return "missing" if shape is None else f"of shape {list(shape)}"
