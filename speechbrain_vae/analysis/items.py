"""Items of the ABX test: stretches of speech with a phone, its context, its speaker."""

import math
from pathlib import Path
from typing import NamedTuple

from .phones import SILENCE, phone_group, plain

SPANS = ("phone", "triphone")
HEADER = "#file onset offset #phone prev-phone next-phone speaker"
# Phones further apart than this have silence between them, in seconds.
_GAP = 0.02 + 1e-6  # times are decimal fractions


class Item(NamedTuple):
    """A phone as it was said once.

    Arguments
    ---------
    utt : str
        Utterance.
    start, end : float
        What of the utterance is compared, in seconds.
    phone : str
        The phone in question.
    previous, following : str
        The phones beside it, ``SIL`` for silence.
    speaker : str
        Who says it.
    """

    utt: str
    start: float
    end: float
    phone: str
    previous: str
    following: str
    speaker: str


def items_from_alignment(phone_times, speakers, span: str = "phone") -> list[Item]:
    """Every phone of an alignment as an item.

    Arguments
    ---------
    phone_times : mapping of str to list
        ``[start, end, phone]`` of each phone of an utterance, in seconds, in their
        order. Time that no phone covers is silence.
    speakers : mapping of str to str
        Speaker of each utterance.
    span : str
        ``"phone"``: an item is the phone alone. ``"triphone"``: from the start of the
        phone before to the end of the phone after, as ZeroSpeech 2021's are; phones
        beside silence are left out.

    Returns
    -------
    list of Item
        Silence is no item.

    Example
    -------
    >>> times = {"a": [[0.0, 0.1, "K"], [0.1, 0.2, "AE"], [0.3, 0.4, "T"]]}
    >>> for item in items_from_alignment(times, {"a": "Ann"}):
    ...     print(item.phone, item.previous, item.following)
    K SIL AE
    AE K SIL
    T SIL SIL
    """
    if span not in SPANS:
        raise ValueError(f"span must be one of {', '.join(SPANS)}; got {span!r}")
    items = []
    for utt, times in phone_times.items():
        if utt not in speakers:
            raise ValueError(f"utterance {utt!r} of the alignment has no speaker")
        spoken = [
            (float(start), float(end), plain(phone))
            for start, end, phone in times
            if phone_group(phone) != "silence"
        ]
        for position, (start, end, phone) in enumerate(spoken):
            before = spoken[position - 1] if position else None
            after = spoken[position + 1] if position + 1 < len(spoken) else None
            if before and start - before[1] > _GAP:
                before = None
            if after and after[0] - end > _GAP:
                after = None
            if span == "triphone":
                if not (before and after):
                    continue
                start, end = before[0], after[1]
            previous = before[2] if before else SILENCE
            following = after[2] if after else SILENCE
            items.append(
                Item(utt, start, end, phone, previous, following, speakers[utt])
            )
    return items


def format_items(items: list[Item]) -> str:
    """The text of an item file of ZeroSpeech, which ``fastabx`` and Libri-light read.

    Arguments
    ---------
    items : list of Item
        Times are rounded to a tenth of a millisecond.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        A name is empty or has white space.

    Example
    -------
    >>> print(format_items([Item("a", 0.1, 0.25, "AE", "K", "T", "Ann")]).strip())
    #file onset offset #phone prev-phone next-phone speaker
    a 0.1000 0.2500 AE K T Ann
    """
    lines = [HEADER]
    for item in items:
        words = (item.utt, item.phone, item.previous, item.following, item.speaker)
        for word in words:
            if not word or any(character.isspace() for character in word):
                raise ValueError(
                    f"an item file cannot hold {word!r}: names must have no white space"
                )
        utt, *rest = words
        lines.append(f"{utt} {item.start:.4f} {item.end:.4f} {' '.join(rest)}")
    return "\n".join(lines) + "\n"


def write_items(path: str | Path, items: list[Item]):
    """Write an item file.

    Arguments
    ---------
    path : str or Path
        The file, ``.item`` by custom.
    items : list of Item
        As for :func:`format_items`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "test.item"
    >>> write_items(path, [Item("a", 0.1, 0.25, "AE", "K", "T", "Ann")])
    >>> len(path.read_text().splitlines())
    2
    """
    Path(path).write_text(format_items(items), encoding="utf-8")


def read_items(path: str | Path) -> list[Item]:
    """Items of a ZeroSpeech item file.

    Arguments
    ---------
    path : str or Path
        A file with the header ``#file onset offset #phone prev-phone next-phone
        speaker``, its columns in any order.

    Returns
    -------
    list of Item

    Raises
    ------
    ValueError, FileNotFoundError
        There is no such file, or it has another layout; the line is named.

    Example
    -------
    >>> path = getfixture("tmp_path") / "test.item"
    >>> write_items(path, [Item("a", 0.1, 0.25, "AE", "K", "T", "Ann")])
    >>> read_items(path)[0].following
    'T'
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no item file {path}")
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    header = lines[0].split() if lines else []
    missing = [column for column in HEADER.split() if column not in header]
    if missing:
        raise ValueError(
            f"{path}: the first line must name the columns {HEADER}; "
            f"{', '.join(missing)} is missing"
        )
    columns = [header.index(column) for column in HEADER.split()]
    items = []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != len(header):
            raise ValueError(
                f"{path}, line {number}: {len(fields)} fields instead of {len(header)}"
            )
        utt, start, end, *rest = (fields[column] for column in columns)
        try:
            span = float(start), float(end)
        except ValueError:
            span = math.nan, math.nan
        if not 0 <= span[0] <= span[1] < math.inf:
            raise ValueError(
                f"{path}, line {number}: times must be seconds from 0 on, the onset "
                f"first; got {start} and {end}"
            )
        items.append(Item(utt, *span, *rest))
    return items
