"""Recordings that are wrong or odd, each in one way; and damaged at random."""

import os
import struct

import numpy as np
import soundfile

from speechbrain_vae.dataio.audio import AudioError, load_entry
from speechbrain_vae.dataio.checks import Checked, Job, check_file

RATE = 16000


def sound(seconds=1.0, rate=RATE, seed=0):
    """A voice of sorts: harmonics that come and go, and a little noise."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = 110 + 10 * seed
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 20))
    noise = np.random.default_rng(seed).normal(size=len(time))
    return (tone * (1.2 + np.sin(2 * np.pi * 3 * time)) + noise / 20) / 12


def write(path, samples=None, rate=RATE, **options):
    """Write a file of a second and give its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = sound(rate=rate) if samples is None else samples
    soundfile.write(path, samples, rate, **options)
    return path.read_bytes()


def patched(data, at, form, value):
    """The bytes with a number of the header replaced."""
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def with_value(value, at=500):
    """A second with one sample of another value."""
    samples = sound()
    samples[at] = value
    return samples


def odd_files(folder):
    """Write one file for each row; a dict from what it is to its path."""
    files = {}

    def add(what, name, samples=None, change=None, rate=RATE, **options):
        files[what] = folder / "odd" / name
        data = write(files[what], samples, rate, **options)
        if change is not None:
            files[what].write_bytes(change(data))

    def half(data):
        return data[: len(data) // 2]

    add("empty file", "empty.wav", change=lambda data: b"")
    add("text named .wav", "text.wav", change=lambda data: b"To whom it may concern\n")
    add("WAV cut in the middle", "cut.wav", sound(3), half)
    add("WAV cut inside its header", "header.wav", change=lambda data: data[:30])
    add("FLAC cut in the middle", "cut.flac", sound(3), half)
    add("MP3 cut in the middle", "cut.mp3", sound(3), half)
    add("Ogg, which has no length, cut in the middle", "cut.ogg", sound(3), half)
    add("WAV whose header says 1 h", "hour.wav", None, lambda d: longer(d, 3600))
    add("WAV whose header says 18 h", "hours.wav", None, lambda d: longer(d, 64800))
    add("WAV of a stream, length left open", "open.wav", None, lambda d: longer(d, 1e9))
    add("FLAC whose header says 12 h", "hours.flac", None, longer_flac)
    add("WAV of 0 Hz", "0hz.wav", change=lambda d: patched(d, 24, "<I", 0))
    add("WAV of 4 GHz", "4ghz.wav", change=lambda d: patched(d, 24, "<I", 4 * 10**9))
    add("WAV of 40 MHz", "40mhz.wav", change=lambda d: patched(d, 24, "<I", 4 * 10**7))
    add("WAV of 0 channels", "0ch.wav", change=lambda d: patched(d, 22, "<H", 0))
    add(
        "WAV of 60,000 channels",
        "60k.wav",
        change=lambda d: patched(d, 22, "<H", 60000),
    )
    add("header alone, no samples", "none.wav", np.zeros(0))
    add("one sample", "one.wav", np.ones(1) / 2)
    add("50 ms", "short.wav", sound(0.05))
    add("8 kHz", "8k.wav", rate=8000)
    add("44.1 kHz stereo", "44k.flac", np.stack([sound(rate=44100)] * 2, 1), rate=44100)
    add("48 kHz MP3", "48k.mp3", rate=48000)
    add("six channels", "six.wav", np.stack([sound(seed=k) for k in range(6)], 1))
    add(
        "one of two channels silent", "half.wav", np.stack([sound(), np.zeros(RATE)], 1)
    )
    add("channels that cancel", "cancel.wav", np.stack([sound(), -sound()], 1))
    add("24 bit", "24.wav", subtype="PCM_24")
    add("float", "float.wav", subtype="FLOAT")
    add("8 bit", "8bit.wav", subtype="PCM_U8")
    add("mu-law", "mulaw.wav", subtype="ULAW")
    add("float with a NaN", "nan.wav", with_value(np.nan), subtype="FLOAT")
    add("float with an infinity", "inf.wav", with_value(np.inf), subtype="FLOAT")
    add("float of 1e30", "1e30.wav", with_value(1e30), subtype="FLOAT")
    add("double of 1e300", "huge.wav", with_value(1e300), subtype="DOUBLE")
    add("float beyond full scale, x 100", "loud.wav", 100 * sound(), subtype="FLOAT")
    add("clipped", "clipped.wav", np.clip(9 * sound(), -1, 1))
    add("speech on a DC offset", "dc.wav", 0.3 + sound() / 2)
    add("DC alone", "dconly.wav", np.full(RATE, 0.3))
    add("silence", "silence.wav", np.zeros(RATE))
    add("one click in silence", "click.wav", with_value(0.5) * (np.arange(RATE) == 500))
    add("quiet, -60 dB", "quiet.wav", 2e-3 * sound(), subtype="PCM_24")
    add("next to nothing, -85 dB", "hush.wav", 1e-4 * sound(), subtype="PCM_24")
    add("65 s, half of it silent", "long.wav", np.r_[sound(33), np.zeros(32 * RATE)])
    add("FLAC named .wav", "flac.wav", format="FLAC")
    add("MP3 named .flac", "mp3.flac", format="MP3")
    add("WAV named .MP3", "upper.MP3", format="WAV")
    add("name with spaces", "a b  c.wav")
    add("name in Greek and with an emoji", "καλημέρα 🎤.wav")
    add("name with a newline", "new\nline.wav")
    add("name with quotes and a comma", 'it\'s "a", b.wav')
    add("name that begins with a dash", "-rf.wav")
    add("name of 250 bytes", "n" * 246 + ".wav")
    add("ID of another file (x-y.wav and x/y.wav)", "x-y.wav")
    add("ID of another file (x.flac beside x.wav)", "twin.flac")
    write(folder / "odd" / "x" / "y.wav")
    write(folder / "odd" / "twin.wav")
    broken = files["broken symbolic link"] = folder / "odd" / "broken.wav"
    broken.symlink_to(folder / "nowhere.wav")
    loop = files["link to its own folder"] = folder / "odd" / "loop"
    loop.symlink_to(folder / "odd")
    pipe = files["pipe that nobody writes to"] = folder / "odd" / "pipe.wav"
    os.mkfifo(pipe)
    named = files["folder named .wav"] = folder / "odd" / "folder.wav"
    named.mkdir()
    return files


def longer(data, seconds):
    """A WAV whose header promises more than there is."""
    size = int(min(2 * RATE * seconds, 2**32 - 100))
    return patched(patched(data, 4, "<I", size + 36), 40, "<I", size)


def longer_flac(data):
    """A FLAC whose header promises 12 hours: 36 bits that end at byte 26."""
    found = int.from_bytes(data[18:26], "big") >> 36 << 36
    return data[:18] + (found | 12 * 3600 * RATE).to_bytes(8, "big") + data[26:]


def damaged(data, seed):
    """The bytes of a file, some of them others, and sometimes its end missing."""
    random = np.random.default_rng(seed)
    spoilt = bytearray(data)
    # Headers are short and matter most.
    reach = 64 if seed % 2 else len(spoilt)
    for _ in range(random.integers(1, 30)):
        spoilt[random.integers(reach)] = random.integers(256)
    if seed % 3 == 0:
        del spoilt[random.integers(len(spoilt)) :]
    return bytes(spoilt)


def job(path, folder):
    """The check of a file as the preparation does it."""
    return Job(str(path), str(folder / "converted" / path.name), RATE, 0.1, 30.0)


def check_and_load(job):
    """Check a damaged file, and read what was found usable as a training would."""
    found = check_file(job)
    for start, stop in found.parts:
        entry = {"wav": found.wav, "start": start, "stop": stop}
        try:
            wav = load_entry(entry)
        except AudioError as error:
            return Checked(job.wav, reason=f"LOST LATER: {error}")
        if not wav.isfinite().all() or len(wav) != stop - start:
            return Checked(job.wav, reason="NOT WHAT WAS CHECKED")
    return found
