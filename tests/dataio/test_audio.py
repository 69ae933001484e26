import os
import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_vae.dataio import audio


@pytest.mark.parametrize(
    "name, options",
    [
        ("a.wav", {}),
        ("a.wav", {"format": "NIST", "subtype": "PCM_16"}),
        ("a.wav", {"subtype": "FLOAT"}),
        ("a.flac", {}),
        ("a.ogg", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
        ("a.mp3", {}),
    ],
)
def test_every_format_decodes_to_what_was_written(tmp_path, recording, name, options):
    path = recording(tmp_path / name, seconds=1.0, **options)
    wav = audio.load(path, 16000)
    reference = audio.load(recording(tmp_path / "ref.wav", seconds=1.0), 16000)
    assert wav.dtype == torch.float32 and wav.shape == reference.shape
    error = (wav - reference).pow(2).mean() / reference.pow(2).mean()
    assert error < 0.1


OGG = [{}, {"format": "OGG", "subtype": "OPUS"}]


@pytest.mark.parametrize("options", OGG, ids=["vorbis", "opus"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_an_ogg_that_was_cut_is_refused(tmp_path, recording, options, share):
    path = recording(tmp_path / "a.ogg", seconds=5.0, **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(audio.AudioError, match="truncated: the last page"):
        audio.load(path)
    # Between two pages, nothing is wrong but the end.
    path.write_bytes(data[: data.rfind(b"OggS")])
    with pytest.raises(audio.AudioError, match="truncated: the last page .* missing"):
        audio.load(path)


@pytest.mark.parametrize("options", OGG, ids=["vorbis", "opus"])
@pytest.mark.parametrize("seconds", [0.001, 0.02, 1.0, 70.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_whole_ogg_is_whole(tmp_path, recording, options, seconds, channels):
    path = recording(tmp_path / "a.ogg", seconds, channels=channels, **options)
    assert len(audio.load(path)) == pytest.approx(16000 * seconds, abs=8)
    # What players leave behind the audio is no part of it.
    path.write_bytes(path.read_bytes() + b"TAG" + bytes(125))
    assert len(audio.load(path)) == pytest.approx(16000 * seconds, abs=8)


@pytest.mark.parametrize("codec", ["libvorbis", "libopus", "vorbis"])
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here")
def test_a_whole_ogg_of_ffmpeg_is_whole(tmp_path, recording, codec):
    path, wav = tmp_path / "a.ogg", recording(tmp_path / "a.wav", seconds=3.0)
    command = ["ffmpeg", "-i", wav, "-c:a", codec, "-strict", "-2", "-ac", "2", path]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"this ffmpeg has no {codec}")
    assert len(audio.load(path)) == pytest.approx(48000, abs=4000)


def test_stereo_44100_mp3_loads_at_the_rate_of_the_model(tmp_path, recording):
    path = recording(tmp_path / "a.mp3", seconds=2.0, rate=44100, channels=2)
    assert audio.load(path, 16000).shape == (32000,)


def test_channels_are_averaged():
    wav = torch.tensor([[1.0, 3.0], [2.0, 2.0]])
    assert audio.to_mono_at(wav, 16000, 16000).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 11127])
def test_blockwise_resampling_equals_that_of_the_whole_file(
    tmp_path, recording, monkeypatch, rate
):
    path = recording(tmp_path / "a.wav", seconds=1.3, rate=rate, subtype="FLOAT")
    whole = audio.to_mono_at(*audio.read(path), 16000)
    monkeypatch.setattr(audio, "BLOCK_SECONDS", 0.1)
    blockwise = audio.load(path, 16000)
    assert blockwise.shape == whole.shape
    assert abs(len(whole) - 1.3 * 16000) <= 1
    assert torch.allclose(blockwise, whole, atol=1e-6)


def test_a_tone_keeps_its_frequency_and_level_through_resampling():
    time = torch.arange(44100).double() / 44100
    tone = torch.sin(2 * torch.pi * 1000 * time)
    wav = audio.to_mono_at(tone, 44100, 16000)
    expected = torch.sin(2 * torch.pi * 1000 * torch.arange(16000).double() / 16000)
    assert (wav - expected)[500:-500].abs().max() < 1e-5


def test_what_lies_above_the_new_band_is_gone():
    time = torch.arange(44100).double() / 44100
    tone = torch.sin(2 * torch.pi * 9000 * time)
    wav = audio.to_mono_at(tone, 44100, 16000)
    assert wav[500:-500].abs().max() < 1e-6


def test_a_part_of_a_file_is_that_part(tmp_path, recording):
    path = str(recording(tmp_path / "a.flac", seconds=1.0))
    whole = audio.load_entry({"wav": path})
    part = audio.load_entry({"wav": path, "start": 3000, "stop": 9000})
    assert torch.equal(part, whole[3000:9000])


def test_a_file_that_shrank_after_preparation_is_named(tmp_path, recording):
    path = str(recording(tmp_path / "a.wav", seconds=0.1))
    with pytest.raises(audio.AudioError, match="a.wav.*since the corpus was prepared"):
        audio.load_entry({"wav": path, "start": 0, "stop": 16000})


def test_a_file_that_became_nan_after_preparation_is_named(tmp_path):
    path = str(tmp_path / "a.wav")
    soundfile.write(path, np.full(8000, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(audio.AudioError, match="a.wav: non-finite.* it changed since"):
        audio.load_entry({"wav": path, "start": 0, "stop": 8000})


def test_conversion_does_not_clip(tmp_path):
    # A full-scale square wave overshoots when it is band-limited.
    square = np.sign(np.sin(2 * np.pi * 440 * np.arange(44100) / 44100))
    soundfile.write(tmp_path / "a.wav", square, 44100, subtype="FLOAT")
    target = audio.convert(tmp_path / "a.wav", tmp_path / "b", 16000)
    wav = audio.load(target, 16000)
    assert target.endswith(".wav") and wav.abs().max() > 1
    assert torch.equal(wav, audio.load(tmp_path / "a.wav", 16000))


def test_conversion_keeps_quiet_recordings_of_high_resolution(tmp_path, recording):
    path = recording(
        tmp_path / "a.wav", rate=48000, level=1e-3, seconds=1.0, subtype="FLOAT"
    )
    expected = audio.load(path, 16000)
    error = audio.load(audio.convert(path, tmp_path / "b"), 16000) - expected
    assert error.abs().max() < 2e-7


def test_an_interrupted_conversion_leaves_nothing_behind(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.full(8000, np.nan), 8000, subtype="FLOAT")
    with pytest.raises(audio.AudioError, match="non-finite"):
        audio.convert(tmp_path / "a.wav", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("rate", [1, 40_000_000, 2**31 - 1])
def test_a_header_with_an_absurd_rate_is_refused(rate, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.ones(9000) / 9, 16000)
    data = bytearray(path.read_bytes())
    data[24:28] = rate.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(audio.AudioError, match=f"sample rate of {rate} Hz"):
        audio.load(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    (tmp_path / "b.wav").symlink_to("/dev/zero")
    for name in ("a.wav", "b.wav"):
        with pytest.raises(audio.AudioError, match="not a file"):
            audio.load(tmp_path / name)


def test_samples_that_no_float_can_square_are_refused(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(9000, 1e30), 16000, subtype="FLOAT")
    with pytest.raises(audio.AudioError, match=r"samples of 1e\+30, which is no audio"):
        audio.load(path)
