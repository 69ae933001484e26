"""The features of a downstream recipe, chosen by one YAML key."""

import hashlib

import torch
from speechbrain.lobes.features import MFCC

from speechbrain_vae.dataio.feature_cache import open_features
from speechbrain_vae.lobes.features import LogMel
from speechbrain_vae.lobes.frozen import FrozenEncoder
from speechbrain_vae.nnet.lengths import frame_counts

SPECTRAL = ("fbank", "fbank_cmvn", "mfcc", "mfcc_cmvn")
"""Names that are no export."""


class FrontEnd(torch.nn.Module):
    """FBANK, MFCC or a pretrained encoder, by one key.

    It is also what :func:`speechbrain_vae.dataio.feature_cache.open_features` asks of
    features (``raw``, ``size``, ``settings``), so those of a frozen front end are
    computed once.

    Arguments
    ---------
    features : str
        "fbank" (80 log-Mel bands), "mfcc" (13 coefficients and two orders of
        deltas), either with "_cmvn" for zero mean and unit variance over each
        utterance; or an export folder, or the ID of one on the Hugging Face Hub.
    layer : str
        Of an export, a representation of
        :class:`~speechbrain_vae.lobes.frozen.FrozenEncoder`: "features", "latent",
        "encoder", "layers" or "tokens". Spectral features have one only.
    freeze : bool
        Whether the weights of an export stay as they are.
    sample_rate : int
        Of the waveforms, in Hz; an export of another one is refused.
    save_path : str, optional
        Where files from the Hub are kept.

    Example
    -------
    >>> front_end = FrontEnd("mfcc")
    >>> feats, lengths = front_end(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> feats.shape, front_end.size
    (torch.Size([2, 101, 39]), 39)
    >>> front_end = FrontEnd(getfixture("tiny_export"), layer="layers")
    >>> feats, lengths = front_end(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> feats.shape, front_end.layers
    (torch.Size([2, 51, 24]), 2)
    """

    def __init__(
        self,
        features: str,
        layer: str = "features",
        freeze: bool = True,
        sample_rate: int = 16000,
        save_path: str | None = None,
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.frozen = freeze
        self.layers = 1
        self.codebook_sizes = None
        if str(features) in SPECTRAL:
            if layer != "features" or not freeze:
                raise ValueError(
                    f"{features} has one layer and nothing to train; leave layer: "
                    "features and freeze: True, or give an export as features"
                )
            self.source: _Spectral | _Encoder = _Spectral(features, sample_rate)
        else:
            self.source = _Encoder(features, layer, freeze, sample_rate, save_path)
            self.layers = self.source.layers
            self.codebook_sizes = self.source.codebook_sizes
        self.size = self.source.size
        self.frame_shift = self.source.frame_shift

    @property
    def settings(self):
        """What the features depend on, for the key of a cache."""
        return {**self.source.settings, "sample_rate": self.sample_rate}

    @property
    def first_frame(self):
        """Time of the centre of the first frame in seconds."""
        # A frame of stride s stands for s hops; the first of them is at zero.
        return (self.frame_shift - self.source.hop_samples / self.sample_rate) / 2

    def forward(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features of waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            At ``sample_rate``, shape [B, S].
        wav_lens : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        feats : torch.Tensor
            Shape [B, T, size], zero on padding (-1 for tokens); of several layers
            one after the other in the last dimension.
        lengths : torch.Tensor
            Relative lengths [B].
        """
        samples = LogMel.valid_samples(wavs, wav_lens)
        feats = self.source(wavs, wav_lens)
        counts = self.counts(samples).clamp(max=feats.shape[1])
        return feats, counts / feats.shape[1]

    @torch.no_grad()
    def raw(self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None):
        """Features [B, T, size] and frame counts [B], without a gradient."""
        feats, lengths = self(wavs, wav_lens)
        return feats, frame_counts(lengths, *feats.shape[:2])

    def open(self, entries, cache=None, workers=0):
        """Features of a manifest, see ``open_features`` of the feature cache."""
        return open_features(entries, self, cache, workers)

    def counts(self, samples):
        """Frames of waveforms of so many samples."""
        hops = 1 + samples // self.source.hop_samples
        return -(-hops // self.source.stride)


def frames_in(front_end: FrontEnd, seconds: float) -> int:
    """Whole frames of a front end that last about so many seconds, at least one.

    The stride of a model that is to give frames of one length for any features.

    Arguments
    ---------
    front_end : FrontEnd
        Whose frames are counted.
    seconds : float
        Length of a frame of the model.

    Returns
    -------
    int

    Example
    -------
    >>> frames_in(FrontEnd("fbank"), 0.04)
    4
    """
    return max(1, round(seconds / front_end.frame_shift))


class _Spectral(torch.nn.Module):
    """FBANK or MFCC, each utterance by itself: deltas never see padding."""

    def __init__(self, name, sample_rate):
        super().__init__()
        self.settings = {"features": name}
        self.cmvn = name.endswith("_cmvn")
        self.fbank = LogMel(sample_rate, normalisation="none")
        self.mfcc = None
        if name.startswith("mfcc"):
            self.mfcc = MFCC(sample_rate=sample_rate, n_mfcc=13, context=False)
        self.size = 39 if self.mfcc else self.fbank.size
        self.frame_shift = self.fbank.frame_shift
        self.hop_samples = self.fbank.hop_samples
        self.stride = 1

    @torch.no_grad()
    def forward(self, wavs: torch.Tensor, wav_lens):
        samples = LogMel.valid_samples(wavs, wav_lens)
        items = [
            self.one(w[: max(int(n), 1)]) for w, n in zip(wavs, samples, strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(items, batch_first=True)

    def one(self, wav):
        # wav: [S]
        if self.mfcc:
            feats = self.mfcc(wav.float().unsqueeze(0))[0]
        else:
            feats = self.fbank(wav.unsqueeze(0))[0][0]
        if self.cmvn:
            std = feats.std(0, correction=0).clamp(min=1e-5)
            feats = (feats - feats.mean(0)) / std
        return feats


class _Encoder(torch.nn.Module):
    """An export; all layers side by side where they are to be weighted."""

    def __init__(self, source, layer, freeze, sample_rate, save_path):
        super().__init__()
        self.encoder = FrozenEncoder(source, save_path, freeze, layer)
        if self.encoder.sample_rate != sample_rate:
            raise ValueError(
                f"{source} was trained on audio at {self.encoder.sample_rate} Hz and "
                f"cannot take {sample_rate} Hz; set sample_rate: "
                f"{self.encoder.sample_rate}, and the recipe resamples the corpus"
            )
        model = self.encoder.autoencoder
        self.stride = model.stride
        self.frame_shift = self.encoder.frame_shift
        self.hop_samples = self.encoder.features.hop_samples
        self.layers = 1
        self.codebook_sizes = None
        self.size = self.encoder.output_size
        if layer == "layers":
            # Each downstream task weighs them by itself: lobes.adapter.
            self.encoder.weights.requires_grad_(False)
            self.layers = len(self.encoder.weights)
            self.size *= self.layers
        if layer == "tokens":
            quantiser = model.bottleneck.quantiser
            self.codebook_sizes = [quantiser.codebook_size] * quantiser.groups
            self.size = quantiser.groups
        self.layer = layer

    @property
    def settings(self):
        digest = hashlib.sha256()
        for name, tensor in sorted(self.encoder.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        return {"features": digest.hexdigest(), "layer": self.layer}

    def forward(self, wavs: torch.Tensor, wav_lens):
        if self.layer != "layers":
            return self.encoder(wavs, wav_lens)
        frozen = self.encoder.freeze
        with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
            feats, lengths = self.encoder.features(wavs, wav_lens)
            return torch.cat(self.encoder.represent(feats, lengths), dim=-1)
