"""Phone sets of English: ARPAbet, the 61 phones of TIMIT, and groups of both."""

# One name for everything that is not speech.
SILENCE = "SIL"

MANNERS = ("silence", "plosive", "fricative", "nasal", "approximant", "vowel")
"""Manner classes, diphthongs among the vowels: the contexts of the ABX test."""

_MEMBERS = {
    "silence": "SIL SP SPN H# PAU EPI BCL DCL GCL PCL TCL KCL CL VCL <EPS>",
    "plosive": "B D G P T K CH JH DX Q",
    "fricative": "F V TH DH S Z SH ZH HH HV",
    "nasal": "M N NG EM EN ENG NX",
    "approximant": "L R W Y EL ER AXR",
    "vowel": "AA AE AH AO EH IH IY UH UW AX AX-H IX UX",
    "diphthong": "AW AY EY OW OY",
}
# The 39 phones of the CMU pronouncing dictionary.
_ARPABET = """
AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH
UW V W Y Z ZH
"""
ARPABET = tuple(_ARPABET.split())
_GROUP_OF = {
    phone: group for group, members in _MEMBERS.items() for phone in members.split()
}
PHONE_GROUPS = tuple(_MEMBERS)
"""The phonetic groups of an interpretation."""
# Where the manner of a phone is not its group.
_MANNER_OF = {
    "CH": "fricative",
    "JH": "fricative",
    "ER": "vowel",
    "AXR": "vowel",
}

_FOLDED = {
    "AA": "AO",
    "AH": "AX AX-H",
    "ER": "AXR",
    "HH": "HV",
    "IH": "IX",
    "L": "EL",
    "M": "EM",
    "N": "EN NX",
    "NG": "ENG",
    "SH": "ZH",
    "UW": "UX",
    SILENCE: "PCL TCL KCL BCL DCL GCL H# PAU EPI",
}
_FOLD = {old: new for new, olds in _FOLDED.items() for old in olds.split()}


def plain(phone: str) -> str:
    """A phone's name in upper case and without stress: ``ah0`` is ``AH``.

    Arguments
    ---------
    phone : str
        An ARPAbet or TIMIT phone.

    Returns
    -------
    str

    Example
    -------
    >>> plain("ah0"), plain("ax-h"), plain("")
    ('AH', 'AX-H', 'SIL')
    """
    return phone.strip().upper().rstrip("012") or SILENCE


def fold_timit(phone: str) -> str | None:
    """One of the 39 classes of TIMIT that phone recognition is scored with.

    Lee and Hon, "Speaker-independent phone recognition using hidden Markov models",
    IEEE Transactions on Acoustics, Speech and Signal Processing 37(11), 1989.

    Arguments
    ---------
    phone : str
        One of the 61 phones of TIMIT.

    Returns
    -------
    str or None
        A class in upper case, silence ``SIL``; None for the glottal stop ``q``, which
        is left out.

    Example
    -------
    >>> [fold_timit(phone) for phone in ("ix", "zh", "bcl", "dx", "q")]
    ['IH', 'SH', 'SIL', 'DX', None]
    """
    phone = plain(phone)
    if phone == "Q":
        return None
    return _FOLD.get(phone, phone)


class UnknownPhoneError(ValueError):
    """A phone of another set than those whose groups are known."""


def phone_group(phone: str) -> str:
    """The phonetic group of an ARPAbet or TIMIT phone.

    The seven groups of SFVQ's figures (Vali and Bäckström, Interspeech 2023, section
    4), which are those of Scanlon, Ellis and Reilly, "Using broad phonetic group
    experts for improved speech recognition", IEEE Transactions on Audio, Speech, and
    Language Processing 15(3), 2007: affricates count as plosives, ``ER`` as an
    approximant. Theirs leave some of TIMIT's phones out: here flap and glottal stop
    are plosives, closures and pauses silence.

    Arguments
    ---------
    phone : str
        In upper or lower case, with or without a stress digit.

    Returns
    -------
    str
        One of ``PHONE_GROUPS``.

    Raises
    ------
    UnknownPhoneError
        The phone is neither in ARPAbet nor in TIMIT's set.

    Example
    -------
    >>> [phone_group(phone) for phone in ("ay1", "tcl", "L", "CH")]
    ['diphthong', 'silence', 'approximant', 'plosive']
    """
    name = plain(phone)
    if name not in _GROUP_OF:
        raise UnknownPhoneError(
            f"phone {phone!r} is in neither ARPAbet nor TIMIT's phone set: rename the "
            "phones of the alignment"
        )
    return _GROUP_OF[name]


def manner(phone: str) -> str:
    """The manner class of a phone.

    Its group, but for diphthongs and ``ER``, which are vowels, and affricates, which
    end in frication and count as fricatives.

    Arguments
    ---------
    phone : str
        An ARPAbet or TIMIT phone.

    Returns
    -------
    str
        One of ``MANNERS``.

    Example
    -------
    >>> manner("AY"), manner("ER"), manner("CH")
    ('vowel', 'vowel', 'fricative')
    """
    group = _MANNER_OF.get(plain(phone), phone_group(phone))
    return "vowel" if group == "diphthong" else group
