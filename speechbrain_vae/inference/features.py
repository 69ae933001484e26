"""Features, tokens and reconstructions from a pretrained autoencoder."""

from collections.abc import Iterator
from pathlib import Path

import torch
from speechbrain.inference.interfaces import Pretrained

from speechbrain_vae.dataio.audio import stream
from speechbrain_vae.export import read_export
from speechbrain_vae.inference.precision import (
    check_device,
    check_precision,
    lower_precision,
)
from speechbrain_vae.inference.streaming import encode_blocks


class FeatureEncoder(Pretrained):
    """A pretrained encoder, ready to use.

    Arguments
    ---------
    See ``speechbrain.inference.interfaces.Pretrained``; built with
    :meth:`from_hparams`.

    Example
    -------
    >>> encoder = FeatureEncoder.from_hparams(getfixture("tiny_export"))
    >>> encoder.encode_batch(torch.randn(2, 16000), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 51, 8])
    >>> encoder.sample_rate, encoder.frame_shift, encoder.feature_size
    (16000, 0.02, 8)
    """

    MODULES_NEEDED = ["features", "autoencoder"]
    HPARAMS_NEEDED = ["sample_rate", "frame_shift", "feature_size"]

    @classmethod
    def from_hparams(
        cls,
        source: str | Path,
        savedir: str | Path | None = None,
        run_opts: dict | None = None,
        trust_code: bool = False,
        precision: str = "fp32",
    ) -> "FeatureEncoder":
        """Load an export.

        Arguments
        ---------
        source : str or Path
            An export folder, or a repository ID on the Hugging Face Hub.
        savedir : str or Path, optional
            Where files from the Hub are kept, in a folder for each repository.
        run_opts : dict, optional
            SpeechBrain's run options, such as ``{"device": "cuda"}``.
        trust_code : bool
            Whether the export may name other classes than those of speechbrain_vae,
            SpeechBrain and PyTorch; they are then executed.
        precision : str
            ``"fp32"``, ``"bf16"`` (autocast) or ``"int8"`` (dynamic quantisation of
            linear and recurrent layers, on a CPU); see
            :mod:`speechbrain_vae.inference.precision`.

        Returns
        -------
        FeatureEncoder
        """
        run_opts = {"device": "cpu", **(run_opts or {})}
        check_precision(precision, run_opts["device"])
        check_device(run_opts["device"])
        export = read_export(source, savedir, trust_code)
        modules = {"features": export.features, "autoencoder": export.autoencoder}
        # These alone: run options among its keys are the user's to choose.
        hparams = {name: export.hparams[name] for name in cls.HPARAMS_NEEDED}
        modules["autoencoder"] = lower_precision(
            export.autoencoder, precision, run_opts["device"]
        )
        if precision == "bf16":
            run_opts["precision"] = precision
        encoder = cls(modules, hparams, run_opts)
        encoder.sample_rate = hparams["sample_rate"]
        encoder.frame_shift = hparams["frame_shift"]
        encoder.feature_size = hparams["feature_size"]
        encoder.checksums = export.hparams.get("checksums", {})
        return encoder

    def forward(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The same as :meth:`encode_batch`."""
        return self.encode_batch(wavs, wav_lens)

    @torch.no_grad()
    def encode_batch(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Features of a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at ``sample_rate``, shape [B, S].
        wav_lens : torch.Tensor, optional
            Relative lengths, shape [B]. Without them an utterance ends at its last
            non-zero sample.

        Returns
        -------
        torch.Tensor
            Shape [B, T, feature_size], one frame every ``frame_shift`` seconds,
            zero on padding.

        Raises
        ------
        TypeError
            Something else than tensors is given.
        ValueError
            The shapes, or lengths that are no shares.
        """
        return self._encode(wavs, wav_lens)[0].features.float()

    def encode_file(self, path: str | Path) -> torch.Tensor:
        """Features of an audio file of any format, rate, length and channels.

        Arguments
        ---------
        path : str or Path
            File to read.

        Returns
        -------
        torch.Tensor
            Shape [T, feature_size].

        Raises
        ------
        speechbrain_vae.dataio.audio.AudioError
            The file cannot be used; the message names it and says why.
        """
        return torch.cat([features for features, _ in self.stream_file(path)])

    def stream_file(
        self, path: str | Path
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        """Features and code indices of an audio file, a piece at a time.

        A file of any length takes the memory of half a minute, where the encoder sees
        a limited stretch of time, as convolutional ones do; a recurrent encoder
        remembers all it heard and gets the whole file at once. See
        :mod:`speechbrain_vae.inference.streaming`.

        Arguments
        ---------
        path : str or Path
            File to read.

        Yields
        ------
        features : torch.Tensor
            Of the next stretch of time, shape [T, feature_size].
        indices : torch.Tensor or None
            Code indices of a discrete model, shape [T, G], -1 on silence at the end.
        """
        return encode_blocks(
            stream(path, self.sample_rate),
            self.mods.features,
            self.mods.autoencoder,
            self.device,
            self.inference_ctx,
        )

    @torch.no_grad()
    def tokens_batch(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Code indices [B, T, G] of a discrete model, -1 on padding."""
        indices = self._encode(wavs, wav_lens)[0].indices
        if indices is None:
            raise ValueError(
                "this model is continuous and has no tokens; use encode_batch"
            )
        return indices

    @torch.no_grad()
    def reconstruct_batch(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalised log-Mel frames decoded from the features.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms at ``sample_rate``, shape [B, S].
        wav_lens : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        torch.Tensor
            Shape [B, T, n_mels], one frame every hop of the features.
        """
        code, lengths, frames = self._encode(wavs, wav_lens)
        # Out of autocast, which may have left them in 16 bits.
        return self.mods.autoencoder.decode(code.features.float(), lengths, frames)

    @torch.no_grad()
    def sample(self, n: int, frames: int) -> torch.Tensor:
        """Normalised log-Mel frames decoded from the prior of a VAE.

        Arguments
        ---------
        n : int
            Number of samples.
        frames : int
            Latent frames of each.

        Returns
        -------
        torch.Tensor
            Shape [n, frames * stride, n_mels].
        """
        if n < 1 or frames < 1:
            raise ValueError(f"n and frames must be at least 1; got {n} and {frames}")
        autoencoder = self.mods.autoencoder
        if not hasattr(autoencoder.bottleneck, "sample"):
            raise ValueError(
                f"a {type(autoencoder.bottleneck).__name__} has no prior to sample from"
            )
        return autoencoder.decode(autoencoder.bottleneck.sample(n, frames))

    def _encode(self, wavs, wav_lens):
        _check_tensor("wavs", wavs, "[B, S]")
        wavs = wavs.to(self.device)
        if wav_lens is not None:
            _check_tensor("wav_lens", wav_lens, "[B]")
            # NaN is in no range.
            if not ((wav_lens >= 0) & (wav_lens <= 1 + 1e-3)).all():
                raise ValueError(
                    "wav_lens must be relative, a share of the longest item from 0 to "
                    f"1 each; got {wav_lens.tolist()}"
                )
            wav_lens = wav_lens.to(self.device)
        with self.inference_ctx:
            feats, lengths = self.mods.features(wavs, wav_lens)
            code, code_lengths = self.mods.autoencoder.encode(feats, lengths)
        return code, code_lengths, feats.shape[1]


def _check_tensor(name, value, shape):
    if not isinstance(value, torch.Tensor):
        raise TypeError(
            f"{name} must be a torch.Tensor of shape {shape}, which "
            f"torch.as_tensor makes of arrays and lists; got {type(value).__name__}"
        )
