"""A pretrained encoder as the front end of any SpeechBrain recipe."""

import torch

from speechbrain_vae.export import read_export

REPRESENTATIONS = ("features", "latent", "encoder", "layers", "tokens")


class FrozenEncoder(torch.nn.Module):
    """Features of a pretrained autoencoder from waveforms.

    A drop-in for the self-supervised front end of SpeechBrain's own recipes. It
    loads itself when it is built, stays in evaluation mode when the recipe calls
    ``train()``, and needs no lengths: an utterance ends at its last non-zero sample.

    Arguments
    ---------
    source : str
        An export folder, or a repository ID on the Hugging Face Hub.
    save_path : str, optional
        Where files from the Hub are kept.
    freeze : bool
        Whether the weights stay as they are. Otherwise they are fine-tuned, by
        whatever optimiser the recipe gives this module to.
    representation : str
        "features": the bottleneck's features; "latent": what the decoder sees (a
        sample, for a VAE); "encoder": the encoder's last layer; "layers": a learned
        weighting of the encoder's layers (Yang et al. 2021); "tokens": code
        indices [B, T, G] as numbers.
    output_norm : bool
        Whether each frame of the output is layer-normalised.

    Example
    -------
    >>> export = getfixture("tiny_export")
    >>> frontend = FrozenEncoder(export)
    >>> frontend(torch.randn(2, 16000), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 51, 8])
    """

    def __init__(
        self,
        source,
        save_path=None,
        freeze=True,
        representation="features",
        output_norm=False,
    ):
        super().__init__()
        if representation not in REPRESENTATIONS:
            raise ValueError(
                f"representation must be one of {', '.join(REPRESENTATIONS)}; "
                f"got {representation!r}"
            )
        export = read_export(source, save_path)
        self.features = export.features
        self.autoencoder = export.autoencoder
        self.freeze = freeze
        self.representation = representation
        self.output_norm = output_norm
        self.sample_rate = export.hparams["sample_rate"]
        self.frame_shift = export.hparams["frame_shift"]
        self.autoencoder.requires_grad_(not freeze)
        if representation in ("encoder", "layers"):
            self.output_size = self.autoencoder.encoder.output_size
        else:
            self.output_size = self.autoencoder.latent_size
        if representation == "layers":
            with torch.no_grad():
                probe = torch.zeros(1, self.autoencoder.stride, self.features.size)
                layers = self.autoencoder.encoder.layers(probe)
            sizes = sorted({layer.shape[-1] for layer in layers})
            if len(sizes) > 1:
                raise ValueError(
                    f"the layers of {source} have sizes {sizes} and cannot be "
                    'weighted; choose representation="encoder" or "features"'
                )
            self.weights = torch.nn.Parameter(torch.zeros(len(layers)))
        if representation == "tokens" and self.tokenless():
            raise ValueError(
                f"{source} is a continuous model and has no tokens; choose a "
                "representation among features, latent, encoder, layers"
            )

    def tokenless(self):
        """Whether the bottleneck is continuous."""
        with torch.no_grad():
            probe = torch.zeros(1, self.autoencoder.stride, self.features.size)
            return self.autoencoder.encode(probe)[0].indices is None

    def train(self, mode=True):
        """Set the mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        if self.freeze:
            self.features.eval()
            self.autoencoder.eval()
        return self

    def forward(self, wav, wav_lens=None):
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
            Shape [B, T, D], float32, zero on padding, with ``T`` about
            ``S / (sample_rate * frame_shift)``.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            feats, lengths = self.features(wav, wav_lens)
            hidden = self.represent(feats, lengths)
        if self.representation == "layers":
            weights = torch.softmax(self.weights, dim=0)
            hidden = sum(w * h for w, h in zip(weights, hidden, strict=True))
        if self.output_norm:
            hidden = torch.nn.functional.layer_norm(hidden, hidden.shape[-1:])
        return hidden.float()

    def represent(self, feats, lengths):
        """The chosen representation of features [B, T, F]: one tensor or a list."""
        encoder = self.autoencoder.encoder
        if self.representation == "layers":
            return encoder.layers(feats, lengths)
        if self.representation == "encoder":
            return encoder(feats, lengths)
        code, _ = self.autoencoder.encode(feats, lengths)
        if self.representation == "tokens":
            return code.indices
        return code.latent if self.representation == "latent" else code.features
