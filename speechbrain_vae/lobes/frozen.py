"""A pretrained encoder as the front end of any SpeechBrain recipe."""

import contextlib

import torch
from speechbrain.utils.checkpoints import (
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)

from speechbrain_vae.export import read_export
from speechbrain_vae.inference.precision import (
    autocast,
    check_precision,
    lower_precision,
)
from speechbrain_vae.kinds import check_kind

REPRESENTATIONS = ("features", "latent", "encoder", "layers", "tokens")


@register_checkpoint_hooks
class FrozenEncoder(torch.nn.Module):
    """Features of a pretrained autoencoder from waveforms.

    A drop-in for the self-supervised front end of SpeechBrain's own recipes. It
    loads itself when it is built, stays in evaluation mode when the recipe calls
    ``train()``, and needs no lengths: an utterance ends at its last non-zero sample.
    Where nothing of it is trained it follows the waveforms to their device, as Fbank
    does; otherwise it must be one of the recipe's ``modules``, and says so. Among the
    ``recoverables`` of a checkpointer it saves what the recipe trains, and nothing
    that the export holds already.

    Arguments
    ---------
    source : str
        An export folder, or a repository ID on the Hugging Face Hub.
    save_path : str, optional
        Where files from the Hub are kept, in a folder for each repository.
    freeze : bool
        Whether the weights stay as they are. Otherwise those that the representation
        depends on are fine-tuned, by whatever optimiser the recipe gives this module
        to. The bottleneck stays in evaluation mode: its codes do not move.
    representation : str
        "features": the bottleneck's features; "latent": what the decoder sees (a
        sample, for a VAE); "encoder": the encoder's last layer; "layers": a learned
        weighting of the encoder's layers (Yang et al. 2021), its logits in
        ``weights``; "tokens": code indices [B, T, G] as numbers, -1 on padding.
    output_norm : bool
        Whether each frame of the output is layer-normalised.
    sample_rate : int, optional
        Sampling rate of the recipe's waveforms, in Hz; another one than the export's
        is refused.
    trust_code : bool
        Whether the export may name other classes than those of speechbrain_vae,
        SpeechBrain and PyTorch; they are then executed.
    precision : str
        ``"fp32"``, ``"bf16"`` (autocast) or ``"int8"`` (dynamic quantisation of linear
        and recurrent layers, of a frozen encoder on a CPU); see
        :mod:`speechbrain_vae.inference.precision`.

    Example
    -------
    >>> export = getfixture("tiny_export")
    >>> frontend = FrozenEncoder(export)
    >>> frontend(torch.randn(2, 16000), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 51, 8])
    >>> frontend.sample_rate, frontend.frame_shift, frontend.output_size
    (16000, 0.02, 8)
    """

    def __init__(
        self,
        source: str,
        save_path: str | None = None,
        freeze: bool = True,
        representation: str = "features",
        output_norm: bool = False,
        sample_rate: int | None = None,
        trust_code: bool = False,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        if representation not in REPRESENTATIONS:
            raise ValueError(
                "representation (--layer of a recipe) must be one of "
                f"{', '.join(REPRESENTATIONS)}; got {representation!r}"
            )
        check_kind("freeze", freeze, default=True)
        check_kind("output_norm", output_norm, default=False)
        if sample_rate is not None:
            check_kind("sample_rate", sample_rate, default=16000)
        if representation == "tokens" and output_norm:
            raise ValueError(
                "output_norm=True would normalise code indices; tokens need "
                "output_norm=False"
            )
        check_precision(precision)
        if precision == "int8" and not freeze:
            raise ValueError(
                'precision="int8" has no gradients; freeze=False needs "fp32" or "bf16"'
            )
        export = read_export(source, save_path, trust_code)
        self.source = source
        self.features = export.features
        self.autoencoder = lower_precision(export.autoencoder, precision)
        self.precision = precision
        self.freeze = freeze
        self.representation = representation
        self.output_norm = output_norm
        self.sample_rate = export.hparams["sample_rate"]
        self.frame_shift = export.hparams["frame_shift"]
        if sample_rate not in (None, self.sample_rate):
            raise ValueError(
                f"{source} was trained at {self.sample_rate} Hz and the recipe's "
                f"sample_rate is {sample_rate} Hz; resample the recordings to "
                f"{self.sample_rate} Hz, or use an export trained at {sample_rate} Hz"
            )
        self.autoencoder.requires_grad_(not freeze)
        hidden = self._probe()
        self.output_size = hidden[-1].shape[-1]
        if not freeze:
            self._train_what_counts(hidden)
        if representation == "layers":
            self.weights = torch.nn.Parameter(torch.zeros(len(hidden)))

    def train(self, mode=True):
        """Set the mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.features.eval()
        (self.autoencoder if self.freeze else self.autoencoder.bottleneck).eval()
        return self

    def forward(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features of waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at ``sample_rate``, shape [B, S].
        wav_lens : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        torch.Tensor
            Shape [B, T, output_size], float32, zero on padding (tokens: -1), with
            ``T`` about ``S / (sample_rate * frame_shift)``.
        """
        self._follow(wav)
        tuned = torch.is_grad_enabled() and not self.freeze
        with torch.set_grad_enabled(tuned), self._autocast(wav):
            hidden = self.represent(*self.features(wav, wav_lens))
        if self.representation == "layers":
            weights = torch.softmax(self.weights, dim=0)
            hidden = sum(w * h for w, h in zip(weights, hidden, strict=True))
        if self.output_norm:
            hidden = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:])
        return hidden.float()

    @torch.no_grad()
    def encode(
        self, wav: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens of a discrete model, as hosts call a codec.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at ``sample_rate``, shape [B, S].
        wav_lens : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        tokens : torch.Tensor
            Code indices, long, shape [B, T, G]. Padding has index 0, not -1: hosts
            embed every frame and mask later.
        features : torch.Tensor
            The codes themselves, shape [B, T, D], zero on padding.
        """
        self._follow(wav)
        with self._autocast(wav):
            code, _ = self.autoencoder.encode(*self.features(wav, wav_lens))
        return self._indices(code).clamp(min=0), code.features.float()

    def represent(self, feats: torch.Tensor, lengths: torch.Tensor | None = None):
        """The chosen representation of features [B, T, F]: one tensor or a list."""
        encoder = self.autoencoder.encoder
        if self.representation == "layers":
            return encoder.layers(feats, lengths)
        if self.representation == "encoder":
            return encoder.layers(feats, lengths)[-1]
        code, _ = self.autoencoder.encode(feats, lengths)
        if self.representation == "tokens":
            return self._indices(code)
        return code.latent if self.representation == "latent" else code.features

    def _follow(self, wav):
        # Recipes call what computes features whether or not it is among their modules.
        check_precision(self.precision, wav.device)
        here = self.features.mean.device
        if here == wav.device:
            return
        if any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError(
                f"the front end is on {here}, the waveforms are on {wav.device}: give "
                "what is trained of it to the recipe's modules, in its YAML"
            )
        self.to(wav.device)

    def _autocast(self, wav):
        # The recipe's own autocast, where there is one, goes on.
        if self.precision == "bf16":
            return autocast(self.precision, wav.device.type)
        return contextlib.nullcontext()

    def _indices(self, code):
        if code.indices is None:
            raise ValueError(
                f"{self.source} is a continuous model and has no tokens; use an export "
                "of a discrete one, or a representation (--layer of a recipe) among "
                "features, latent, encoder, layers"
            )
        return code.indices

    def _probe(self):
        # One frame of every layer.
        frame = torch.zeros(1, self.autoencoder.stride, self.features.size)
        hidden = self.represent(frame)
        hidden = hidden if self.representation == "layers" else [hidden]
        sizes = sorted({layer.shape[-1] for layer in hidden})
        if len(sizes) > 1:
            raise ValueError(
                f"the layers of {self.source} have sizes {sizes} and cannot be "
                'weighted; choose representation="encoder" or "features" (--layer of '
                "a recipe)"
            )
        return hidden

    def _train_what_counts(self, hidden):
        # DDP refuses trainable parameters without a gradient, such as a decoder's.
        out = sum(layer.sum() for layer in hidden)
        named = dict(self.autoencoder.named_parameters())
        grads = [None] * len(named)
        if out.requires_grad:
            grads = torch.autograd.grad(out, list(named.values()), allow_unused=True)
        reached = {n for n, g in zip(named, grads, strict=True) if g is not None}
        if not any(name.startswith("encoder.") for name in reached):
            raise ValueError(
                f"freeze=False: the {self.representation} of {self.source} pass no "
                'gradient to its encoder; choose representation="encoder" or "layers" '
                "(--layer of a recipe)"
            )
        for name, parameter in named.items():
            parameter.requires_grad_(name in reached)

    def _trained_state(self):
        state = self.state_dict()
        return {k: v for k, v in state.items() if k == "weights" or not self.freeze}

    @mark_as_saver
    def save_trained(self, path):
        """Write what the recipe trains, for SpeechBrain's ``Checkpointer``."""
        torch.save(self._trained_state(), path)

    @mark_as_loader
    def load_trained(self, path, end_of_epoch=True):
        """Read what :meth:`save_trained` wrote."""
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state.keys() != self._trained_state().keys():
            raise ValueError(
                f"{path} is of a run with another freeze or representation than "
                f"freeze={self.freeze}, representation={self.representation!r}; give "
                "those of that run, or a new output_folder"
            )
        self.load_state_dict(state, strict=False)
