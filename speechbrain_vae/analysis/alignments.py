"""Phone times from the files that corpora and aligners leave: one reader a format.

Every reader gives ``[start, end, phone]`` in seconds. Manifests of ``prepare`` already
hold them, as ``phone_times`` of each utterance.
"""

import csv
import gzip
import io
import itertools
import math
import re
import zlib
from collections import Counter, defaultdict
from pathlib import Path

from speechbrain_vae.dataio.manifests import read_manifest, safe_ids

_TSV_COLUMNS = ("utt", "start_s", "end_s", "phone")


def read_alignment(path: str | Path):
    """Phone times of every utterance of a corpus, whatever the format.

    Arguments
    ---------
    path : str or Path
        A manifest (``.json``), a CTM (``.ctm``), a table (``.tsv`` or ``.tsv.gz`` with
        the columns utt, start_s, end_s and phone), or a folder of TIMIT's ``.PHN`` or
        of ``.TextGrid`` files, an utterance each: of TextGrids, ``ann/01.TextGrid`` is
        utterance ann-01 and, where no other file is called so, also 01.

    Returns
    -------
    dict of str to list
        ``[start, end, phone]`` in seconds, in the order of time, by utterance.

    Raises
    ------
    ValueError, FileNotFoundError
        There is no alignment, not one of these formats, or it has times that cannot be.

    Example
    -------
    >>> path = getfixture("tmp_path") / "phones.ctm"
    >>> _ = path.write_text("a 1 0.0 0.1 K\\na 1 0.1 0.2 AE\\n")
    >>> read_alignment(path)["a"][1][2]
    'AE'
    """
    return read_times(path)[0]


def read_times(path: str | Path):
    """Phone times of every utterance, and word times where there are any.

    Arguments
    ---------
    path : str or Path
        As for :func:`read_alignment`.

    Returns
    -------
    phones : dict of str to list
        As of :func:`read_alignment`.
    words : dict of str to list
        ``[start, end, word]`` in seconds, words in upper case, by utterance: of
        TextGrids that have a tier whose name ends with "words".

    Raises
    ------
    ValueError, FileNotFoundError
        As for :func:`read_alignment`.

    Example
    -------
    >>> path = getfixture("tmp_path") / "phones.ctm"
    >>> _ = path.write_text("a 1 0.0 0.1 K\\n")
    >>> read_times(path)
    ({'a': [[0.0, 0.1, 'K']]}, {})
    """
    path, words = Path(path), {}
    if not path.exists():
        raise FileNotFoundError(f"there is no alignment {path}")
    if path.is_dir():
        times, words = _read_folder(path)
    elif path.name.lower().endswith(".json"):
        times = {
            utt: _checked(f"{path}, utterance {utt}", entry["phone_times"])
            for utt, entry in read_manifest(path, path.parent).items()
            if "phone_times" in entry
        }
    elif path.name.lower().endswith(".ctm"):
        times = read_ctm(path)
    elif path.name.lower().endswith((".tsv", ".tsv.gz")):
        times = read_tsv(path)
    else:
        raise ValueError(
            f"{path}: an alignment is a .json manifest, a .ctm, .tsv or .tsv.gz file, "
            "or a folder of .TextGrid or .PHN files"
        )
    if not times:
        raise ValueError(f"{path} holds no phone times")
    return {utt: sorted(entries) for utt, entries in times.items()}, words


def _checked(where, rows):
    return [
        [*_span(where, *_numbers(where, (start, end))), phone]
        for start, end, phone in rows
    ]


def _read_folder(folder):
    grids = _textgrids(folder)
    times = {utt: phones for utt, (phones, _) in grids.items()}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() != ".phn":
            continue
        # TIMIT's own sentences of different speakers share a name.
        utt = f"{path.parent.name}_{path.stem}".lower()
        if utt in times:
            raise ValueError(f"{folder}: two files are named {utt}")
        times[utt] = read_phn(path)
    return times, {utt: words for utt, (_, words) in grids.items() if words}


def _textgrids(folder):
    """Phone and word times of every TextGrid below a folder, by utterance.

    The name is that of the same path in a corpus of folders; where no other file has
    it, the bare name of the file does as well.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() == ".textgrid")
    # Names are made of paths of audio, extension and all.
    audio = [p.relative_to(folder).with_suffix(".wav").as_posix() for p in paths]
    names = safe_ids(audio)
    found = {
        names[a]: _phones_and_words(path) for a, path in zip(audio, paths, strict=True)
    }
    files = Counter(path.stem for path in paths)
    for a, path in zip(audio, paths, strict=True):
        if files[path.stem] == 1:
            found.setdefault(path.stem, found[names[a]])
    return found


def _phones_and_words(path):
    tiers = _tiers(path)
    rows = next(_named(tiers, "words"), [])
    # MFA writes words that its dictionary lacks in brackets.
    words = [[start, end, word.upper()] for start, end, word in rows if word[0] != "<"]
    return _tier(path, tiers, "phones"), words


def read_phn(path: str | Path, sample_rate: int = 16000):
    """Phone times of one TIMIT utterance.

    Arguments
    ---------
    path : str or Path
        Lines ``first_sample end_sample phone``.
    sample_rate : int
        Samples per second.

    Returns
    -------
    list of list

    Example
    -------
    >>> path = getfixture("tmp_path") / "SI648.PHN"
    >>> _ = path.write_text("0 1600 h#\\n1600 3200 sh\\n")
    >>> read_phn(path)
    [[0.0, 0.1, 'h#'], [0.1, 0.2, 'sh']]
    """
    rows = []
    for where, fields in _lines(path, least=3):
        samples = _numbers(where, fields[:2])
        start, end = _span(where, *(sample / sample_rate for sample in samples))
        rows.append([start, end, fields[2]])
    return rows


def read_ctm(path: str | Path):
    """Phone times of many utterances from a NIST CTM file, as Kaldi writes them.

    Arguments
    ---------
    path : str or Path
        Lines ``utterance channel start duration phone``, in seconds; what follows is
        not read, nor are lines that begin with ``;;``.

    Returns
    -------
    dict of str to list

    Example
    -------
    >>> path = getfixture("tmp_path") / "phones.ctm"
    >>> _ = path.write_text("a 1 0.25 0.5 K 0.9\\n")
    >>> read_ctm(path)
    {'a': [[0.25, 0.75, 'K']]}
    """
    times = defaultdict(list)
    for where, fields in _lines(path, least=5):
        start, duration = _numbers(where, fields[2:4])
        span = _span(where, start, round(start + duration, 6))
        times[fields[0]].append([*span, fields[4]])
    return dict(times)


def read_tsv(path: str | Path):
    """Phone times of many utterances from a table with a header.

    Arguments
    ---------
    path : str or Path
        Tab-separated, with the columns utt, start_s, end_s and phone; may be gzipped.

    Returns
    -------
    dict of str to list
    """
    times = defaultdict(list)
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), delimiter="\t")
    missing = [name for name in _TSV_COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"{path}: column {missing[0]} is missing")
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        utt, start, end, phone = (row[name] for name in _TSV_COLUMNS)
        if phone is None:
            raise ValueError(f"{where}: fewer fields than the header has")
        times[utt].append([*_span(where, *_numbers(where, (start, end))), phone])
    return dict(times)


def read_textgrid(path: str | Path, tier: str = "phones"):
    """Phone times of one utterance from a Praat TextGrid, long or short.

    Arguments
    ---------
    path : str or Path
        The file, as the Montreal Forced Aligner writes it; UTF-8 or UTF-16.
    tier : str
        Name of the interval tier, or its end: ``"speaker - phones"`` is taken too.

    Returns
    -------
    list of list
        Intervals without a label are left out.

    Raises
    ------
    ValueError
        There is no such tier, or the file is damaged; line or tier are named.
    """
    return _tier(path, _tiers(path), tier)


def _tier(path, tiers, ending):
    rows = next(_named(tiers, ending), None)
    if rows is None:
        raise ValueError(
            f"{path}: no interval tier {ending!r}; it has {', '.join(tiers) or 'none'}"
        )
    return rows


def _named(tiers, ending):
    """The tiers whose name ends so."""
    return (rows for name, rows in tiers.items() if name.lower().endswith(ending))


def _tiers(path):
    """Intervals with a label of every interval tier of a TextGrid, by its name."""
    text = _text(path)
    # Both forms are the same values in the same order: the long one adds their names.
    values = r'"(?:[^"]|"")*"|(?<![^\s])[-+.\d][-+.\deE]*(?![^\s])'
    tokens = list(re.finditer(values, text))
    kinds = ('"IntervalTier"', '"TextTier"')
    begins = [i for i, token in enumerate(tokens) if token[0] in kinds]
    tiers = {}
    for begin, end in itertools.pairwise([*begins, len(tokens)]):
        if tokens[begin][0] != kinds[0]:
            continue
        # Kind, name, start, end and number of intervals; then three values each.
        header = [token[0] for token in tokens[begin : begin + 5]]
        intervals = tokens[begin + 5 : end]
        number, rest = divmod(len(intervals), 3)
        if rest or header[4:] != [str(number)]:
            raise ValueError(
                f"{_place(path, text, tokens[begin])}: this tier has not as many "
                "intervals as it says: the file is damaged"
            )
        rows = tiers[header[1].strip('"')] = []
        for first, last, label in zip(*[iter(intervals)] * 3, strict=True):
            where = _place(path, text, first)
            start, stop = _span(where, *_numbers(where, [first[0], last[0]]))
            label = label[0][1:-1].replace('""', '"').strip()
            if label:
                rows.append([start, stop, label])
    return tiers


def _place(path, text, token):
    line = text.count("\n", 0, token.start()) + 1
    return f"{path}, line {line}"


def _text(path):
    """A text file, gzipped or not, in UTF-8 or with the mark of UTF-16."""
    path = Path(path)
    data = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file: {error}") from None
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8; save it as UTF-8") from None


def _lines(path, least):
    """Place, for messages, and fields of each line but empty ones and comments."""
    for number, line in enumerate(_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        where = f"{path}, line {number}"
        if len(fields) < least:
            raise ValueError(f"{where}: {least} fields expected; got {len(fields)}")
        yield where, fields


def _numbers(where, fields):
    try:
        return [float(field) for field in fields]
    except (TypeError, ValueError):
        raise ValueError(
            f"{where}: times must be numbers; got {' and '.join(map(str, fields))}"
        ) from None


def _span(where, start, end):
    """Start and end, if they can be those of a sound."""
    if not 0 <= start <= end < math.inf:
        raise ValueError(
            f"{where}: a start at 0 s or later and an end after it are expected; got "
            f"{start:g} to {end:g} s"
        )
    return start, end
