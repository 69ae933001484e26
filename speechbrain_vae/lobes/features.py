"""The acoustic front end: waveforms to normalised log-Mel frames."""

import torch
from speechbrain.lobes.features import Fbank

from speechbrain_vae.dataio.audio import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE
from speechbrain_vae.nnet.lengths import count_mask, frame_counts

NORMALISATIONS = ("utterance", "shrunk", "global", "none")


class LogMel(torch.nn.Module):
    """Log-Mel features in dB, with a normalisation that padding cannot change.

    The spectrogram is SpeechBrain's ``Fbank``. An utterance ends at its last
    non-zero sample: lengths given by the caller and lengths inferred from
    trailing zeros agree, so recipes that pass none get the same features.

    Arguments
    ---------
    sample_rate : int
        Sampling rate of the waveforms, in Hz.
    n_mels : int
        Number of Mel bands F.
    win_length : float
        Analysis window, in ms.
    hop_length : float
        Frame shift, in ms.
    normalisation : str
        ``"utterance"``: zero mean and unit variance of each band over the valid
        frames of the utterance. ``"global"``: with statistics of the training
        set, kept in the buffers ``mean`` and ``std`` (see :meth:`set_statistics`).
        ``"shrunk"``: with statistics between the two. ``"none"``: the dB values.
    shrinkage : float
        Of ``"shrunk"``: how far the mean and the standard deviation of the utterance
        are moved towards those of the training set, from 0 (``"utterance"``) to 1
        (``"global"``). Some of the voice stays, most of the channel goes.

    Example
    -------
    >>> features = LogMel()
    >>> feats, lengths = features(torch.randn(2, 16000), torch.tensor([1.0, 0.5]))
    >>> feats.shape
    torch.Size([2, 101, 80])
    >>> [round(float(n)) for n in lengths * 101]
    [101, 51]
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_mels: int = 80,
        win_length: float = 25,
        hop_length: float = 10,
        normalisation: str = "utterance",
        shrinkage: float = 0.3,
    ) -> None:
        super().__init__()
        if normalisation not in NORMALISATIONS:
            raise ValueError(
                f"normalisation must be one of {', '.join(NORMALISATIONS)}; "
                f"got {normalisation!r}"
            )
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage must be from 0 to 1; got {shrinkage}")
        if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
            raise ValueError(
                f"sample_rate must be from {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz; "
                f"got {sample_rate}"
            )
        hop = sample_rate * hop_length / 1000
        if hop != int(hop) or hop < 1:
            raise ValueError(
                f"hop_length must be a whole number of samples; {hop_length} ms at "
                f"{sample_rate} Hz is {hop} samples"
            )
        self.sample_rate = sample_rate
        self.size = n_mels
        self.frame_shift = hop_length / 1000
        self.normalisation = normalisation
        self.needs_statistics = normalisation in ("shrunk", "global")
        self.shrinkage = shrinkage if normalisation == "shrunk" else 0.0
        self.settings = {
            "sample_rate": sample_rate,
            "n_mels": n_mels,
            "win_length": win_length,
            "hop_length": hop_length,
        }
        self.hop_samples = int(hop)
        # 512 points would interpolate the spectrum; a window's length does not.
        n_fft = int(sample_rate * win_length / 1000)
        if n_fft < 2 or n_mels < 1:
            raise ValueError(
                "win_length must be at least 2 samples, and n_mels at least 1; got "
                f"{win_length} ms and {n_mels}"
            )
        self.fbank = Fbank(
            sample_rate=sample_rate,
            n_fft=n_fft,
            n_mels=n_mels,
            win_length=win_length,
            hop_length=hop_length,
        )
        self.register_buffer("mean", torch.zeros(n_mels))
        self.register_buffer("std", torch.ones(n_mels))
        self.register_buffer("has_statistics", torch.tensor(False))

    def forward(
        self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised features and their lengths.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, shape [B, S].
        wav_lens : torch.Tensor, optional
            Relative lengths, shape [B]. Without them an utterance ends at its
            last non-zero sample.

        Returns
        -------
        feats : torch.Tensor
            Shape [B, T, F] with T = 1 + S // hop, zero on padding. A waveform that
            holds NaN or infinity gives features that are not finite, and changes no
            other.
        lengths : torch.Tensor
            Relative lengths of the features, shape [B].
        """
        feats, counts = self.raw(wavs, wav_lens)
        lengths = counts / feats.shape[1]
        return self.normalise(feats, lengths), lengths

    def raw(self, wavs: torch.Tensor, wav_lens: torch.Tensor | None = None):
        """Features in dB before normalisation [B, T, F], and frame counts [B]."""
        if wavs.dim() != 2 or 0 in wavs.shape:
            raise ValueError(
                "LogMel: wavs must have shape [batch, samples] with at least one "
                f"waveform and one sample; got {list(wavs.shape)}"
            )
        samples = self.valid_samples(wavs, wav_lens)
        wavs = wavs * count_mask(samples, wavs.shape[1])
        # Fbank builds constants at every call: no autocast, no gradient to keep.
        with torch.no_grad():
            feats = self.fbank(wavs.float())
        counts = (1 + samples // self.hop_samples).clamp(max=feats.shape[1])
        return feats, counts

    @staticmethod
    def valid_samples(
        wavs: torch.Tensor, wav_lens: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Samples before the padding of each waveform, shape [B].

        Arguments
        ---------
        wavs : torch.Tensor
            Shape [B, S].
        wav_lens : torch.Tensor, optional
            Relative lengths, shape [B].

        Returns
        -------
        torch.Tensor
            The position after the last non-zero sample, at most the given length.

        Example
        -------
        >>> wavs = torch.tensor([[0.5, 0.0, 0.2, 0.0], [0.1, 0.1, 0.1, 0.1]])
        >>> LogMel.valid_samples(wavs)
        tensor([3, 4])
        """
        limit = frame_counts(wav_lens, len(wavs), wavs.shape[1], wavs.device)
        positions = torch.arange(1, wavs.shape[1] + 1, device=wavs.device)
        inside = (wavs != 0) & count_mask(limit.to(wavs.device), wavs.shape[1])
        return (positions * inside).amax(dim=1)

    def normalise(self, feats: torch.Tensor, lengths: torch.Tensor | None = None):
        """Normalise dB features [B, T, F]; padding becomes zero."""
        counts = frame_counts(lengths, len(feats), feats.shape[1], feats.device)
        counts = counts.to(feats.device)
        mask = count_mask(counts, feats.shape[1]).unsqueeze(-1)
        if self.normalisation == "global":
            self.check_statistics()
            feats = (feats - self.mean) / self.std
        elif self.normalisation != "none":
            n = counts.clamp(min=1).view(-1, 1, 1)
            mean = (feats * mask).sum(1, keepdim=True) / n
            var = (((feats - mean) * mask) ** 2).sum(1, keepdim=True) / n
            mean, std = self.shrink(mean, var.sqrt())
            feats = (feats - mean) / std
        return feats * mask

    def shrink(self, mean: torch.Tensor, std: torch.Tensor):
        """Statistics to normalise with, from those of an utterance, [..., F] in dB."""
        if self.shrinkage:
            self.check_statistics()
            mean = mean.lerp(self.mean, self.shrinkage)
            std = std.lerp(self.std, self.shrinkage)
        return mean, std.clamp(min=1e-5)

    def check_statistics(self):
        """Refuse to go on without the training set's mean and standard deviation.

        Raises
        ------
        RuntimeError
            They were not set.

        Example
        -------
        >>> LogMel(normalisation="global").check_statistics()
        Traceback (most recent call last):
          ...
        RuntimeError: LogMel(normalisation='global') has no statistics yet: ...
        """
        if not self.has_statistics:
            raise RuntimeError(
                f"LogMel(normalisation={self.normalisation!r}) has no statistics yet: "
                "train.py sets them from the training set; elsewhere call "
                "set_statistics()"
            )

    def set_statistics(self, mean, std):
        """Store the training set's mean and standard deviation, each [F], in dB."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=1e-5))
        self.has_statistics.fill_(True)
