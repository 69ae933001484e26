"""eSpeak NG by ctypes: speech with the time of every phone.

The library comes from the PyPI package ``espeakng-loader``, the optional extra
``synthetic``. eSpeak NG is GPL-3.0-or-later: it is neither a dependency of this
package nor part of it, and nothing here imports it before speech is asked for.

Three habits of the library shape this module:

- What it says depends on what it said before, through static variables that its
  own ``espeak_Terminate`` leaves as they are. :func:`synthesise` therefore loads the
  library, speaks one text and unloads it. That costs 0.4 ms, and the same arguments
  give the same samples in any process and any order.
- It is not safe with threads. Use one process for each stream of calls.
- A pause is written as exact digital zeros (by voices without echo, the only ones
  in :data:`VARIANTS`), and the PHONEME event of a stop or an affricate comes after
  the pause that is its closure. The zeros just before such an event, back to
  the event before it at most, are therefore given back to the phone
  (:func:`phone_times`); after a vowel a voiced stop is reported where its voicing bar
  starts, and nothing has to be moved.

Authors
 * speechbrain-vae contributors 2026
"""

import _ctypes
import ctypes
import os
from bisect import bisect_right
from dataclasses import dataclass

SAMPLE_RATE = 22050

_WOMEN = """
    Andrea Annie anika aunty belinda linda f1 grandma steph shelby zac
"""
_MEN = """
    Alex Andy Denis Diogo Gene Henrique Hugo Jacky Lee Mario Michael Mike Nguyen Reed
    Storm Tweaky antonio boris david ed edward gustave ian iven iven3 iven4 kaukovalta
    klatt3 klatt4 m3 m4 m7 m8 marcelo michel miguel mike2 norbert paul pedro quincy rob
    travis victor
"""
VARIANTS = dict.fromkeys(_WOMEN.split(), "f") | dict.fromkeys(_MEN.split(), "m")
"""Voices that sound like different speakers, and the gender that each suggests.

Out of the 104 variants of the library: without those with echo, whisper or
robot effects, and without any that is closer than 1.6 to one already taken, in
dB of long-term spectrum (24 bands) plus 20 times the log ratio of the median pitch.
"""

PHONES = {
    "0": "AA", "A:": "AA", "a": "AE", "aa": "AE", "a#": "AH", "@": "AH", "@2": "AH",
    "V": "AH", "O:": "AO", "O2": "AO", "aU": "AW", "aI": "AY", "E": "EH", "3": "ER",
    "3:": "ER", "eI": "EY", "I": "IH", "I2": "IH", "I#": "IH", "i": "IY", "i:": "IY",
    "oU": "OW", "OI": "OY", "U": "UH", "u:": "UW", "b": "B", "tS": "CH", "d": "D",
    "D": "DH", "f": "F", "g": "G", "h": "HH", "dZ": "JH", "k": "K", "l": "L",
    "m": "M", "n": "N", "N": "NG", "p": "P", "r": "R", "r-": "R", "s": "S", "S": "SH",
    "t": "T", "t2": "T", "T": "TH", "v": "V", "w": "W", "j": "Y", "z": "Z", "Z": "ZH",
}  # fmt: skip
"""Names of the American English units of the library, as ARPAbet-39 phones.

Units that are two phones in one (``A@``, ``@L``, ...) are missing on purpose: a time
for each half would be a guess.
"""

CLOSED = {"B", "CH", "D", "G", "JH", "K", "P", "T"}
"""Phones that start with a closure."""

_GLIDE = ";"
_LANGUAGE = "en-us"
_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8 = 2, 1, 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4
_WORD, _PHONEME = 1, 7
# Fewer zeros than this (2 ms) are a wave passing through zero, not silence.
_ZERO_CROSSING = 44
# At 100, the default, some of the variants clip.
_HALF_VOLUME = 45


class PronunciationError(ValueError):
    """The library says a text in units that have no phone label."""


@dataclass
class Event:
    """One event of the library.

    Arguments
    ---------
    sample : int
        Where, in samples at 22,050 Hz.
    phone : str or None
        Name of a unit without stress marks; ``None`` for the start of a word.
    position : int
        Where in the text its word starts, in characters.
    """

    sample: int
    phone: str | None
    position: int


class _Name(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("string", ctypes.c_char * 8)]
    _fields_ += [("pointer", ctypes.c_void_p)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event)
)


def synthesise(text, variant, rate=175, pitch=50, pitch_range=50, seed=0):
    """Say one text in American English.

    Arguments
    ---------
    text : str
        A sentence or two.
    variant : str
        Name of a voice, one of :data:`VARIANTS`.
    rate : int
        Words a minute, 80 to 450.
    pitch, pitch_range : int
        0 to 100; 50 is the voice as it was made.
    seed : int
        Of the chance inside the library.

    Returns
    -------
    bytes
        Samples: 16-bit integers in the byte order of the machine, 22,050 Hz.
    list of Event
        Units and starts of words in order.

    Example
    -------
    >>> samples, events = synthesise("A boy.", "f1")
    >>> [event.phone for event in events if event.phone]
    ['a#', 'b', 'OI', '_:', '_']
    """
    # Asked for another name, the library would take its default voice silently.
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; known: {', '.join(VARIANTS)}")
    import espeakng_loader

    data = espeakng_loader.get_data_path()
    if not os.path.isfile(os.path.join(data, "voices", "!v", variant)):
        raise ValueError(
            f"this espeakng-loader has no variant {variant!r}: pip install "
            "'espeakng-loader>=0.2.4'"
        )
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    try:
        rate_of_library = library.espeak_Initialize(
            _SYNCHRONOUS, 0, os.fsencode(data), _PHONEME_EVENTS
        )
        if rate_of_library != SAMPLE_RATE:
            raise RuntimeError(f"espeak_Initialize({data!r}) gave {rate_of_library}")
        # Initialising resets the generator, so the order of these two matters.
        library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        if library.espeak_SetVoiceByName(f"{_LANGUAGE}+{variant}".encode()):
            raise ValueError(f"eSpeak NG has no voice {_LANGUAGE}+{variant}")
        for parameter, value in (
            (_RATE, rate),
            (_VOLUME, _HALF_VOLUME),
            (_PITCH, pitch),
            (_RANGE, pitch_range),
        ):
            library.espeak_SetParameter(parameter, value, 0)
        return _speak(library, text)
    finally:
        library.espeak_Terminate()
        _unload(library)


def phone_times(samples, events, text):
    """Who says what when: the phones and words of :func:`synthesise`.

    A phone lasts to the next event, without the silence before that event; a stop or
    an affricate has its closure. Silence is in no phone.

    Arguments
    ---------
    samples : array of int16
        The samples, shape [S].
    events : list of Event
        From :func:`synthesise`.
    text : str
        What was said.

    Returns
    -------
    list of (int, int, str)
        Start, end and ARPAbet phone, in samples.
    list of (int, int, str)
        Start, end and word as it is in the text, without punctuation.

    Example
    -------
    >>> import numpy as np
    >>> samples, events = synthesise("A boy.", "f1")
    >>> phones, words = phone_times(np.frombuffer(samples, "=i2"), events, "A boy.")
    >>> [phone for _, _, phone in phones], [word for _, _, word in words]
    (['AH', 'B', 'OY'], ['A', 'boy'])
    """
    starts = _word_starts(text)
    sounding = samples.nonzero()[0]
    phones, owners = [], []
    word_start = 0
    is_open = False
    for event in events:
        if event.phone is None:
            word_start = event.sample
            continue
        if event.phone == _GLIDE:
            continue
        # The end of the sound before this event, that is the start of its silence.
        index = bisect_right(sounding, event.sample - 1)
        silence = int(sounding[index - 1]) + 1 if index else 0
        if event.sample - silence < _ZERO_CROSSING:
            silence = event.sample
        if is_open:
            silence = max(silence, phones[-1][0])
            phones[-1][1] = silence
        is_open = not event.phone.startswith("_")
        if not is_open:
            continue
        word = bisect_right(starts, event.position) - 1
        label = PHONES.get(event.phone)
        if label is None:
            raise PronunciationError(
                f"eSpeak NG says unit {event.phone!r} in {_words(text)[word]!r}, which "
                "is not one ARPAbet phone"
            )
        # The pause of a comma ends, and a closure starts, where the word starts.
        start = max(silence, word_start) if label in CLOSED else event.sample
        phones.append([start, None, label])
        owners.append(word)
    if is_open:
        phones[-1][1] = int(sounding[-1]) + 1
    return _checked(phones, owners, text)


def _checked(phones, owners, text):
    spoken = _words(text)
    if sorted(set(owners)) != list(range(len(spoken))) or owners != sorted(owners):
        missing = [word for i, word in enumerate(spoken) if i not in owners]
        raise PronunciationError(f"eSpeak NG gave no times to {missing} in {text!r}")
    for start, end, label in phones:
        if end <= start:
            raise PronunciationError(f"eSpeak NG gave no time to {label} in {text!r}")
    words = []
    for index, word in enumerate(spoken):
        own = [p for p, owner in zip(phones, owners, strict=True) if owner == index]
        words.append((own[0][0], own[-1][1], word))
    return [tuple(phone) for phone in phones], words


def _words(text):
    return [word.strip(".,?") for word in text.split()]


def _word_starts(text):
    starts, position = [], 0
    for word in text.split():
        position = text.index(word, position)
        starts.append(position)
        position += len(word)
    return starts


def _speak(library, text):
    chunks, events = [], []

    def callback(wav, count, event):
        if wav and count > 0:
            chunks.append(ctypes.string_at(wav, 2 * count))
        index = 0
        while event[index].type:
            _collect(event[index], events)
            index += 1
        return 0

    # Held by name until the synthesis ends: the library keeps only a pointer.
    keep = _Callback(callback)
    library.espeak_SetSynthCallback(keep)
    data = text.encode()
    error = library.espeak_Synth(
        data, ctypes.c_size_t(len(data) + 1), 0, 1, 0, _UTF8, None, None
    )
    if error:
        raise RuntimeError(f"espeak_Synth gave error {error} for {text!r}")
    library.espeak_Synchronize()
    return b"".join(chunks), events


def _collect(event, events):
    if event.type == _WORD:
        events.append(Event(event.sample, None, event.text_position - 1))
    elif event.type == _PHONEME:
        name = bytes(event.id.string).decode().lstrip("',%=")
        position = events[-1].position if events else 0
        events.append(Event(event.sample, name, position))


def _unload(library):
    if os.name == "nt":
        _ctypes.FreeLibrary(library._handle)
    else:
        _ctypes.dlclose(library._handle)
