"""Phone times from the files that corpora and aligners leave: one reader a format.

Every reader gives ``[start, end, phone]`` in seconds. Manifests of ``prepare`` already
hold them, as ``phone_times`` of each utterance.
"""

import csv
import gzip
import re
from collections import defaultdict
from pathlib import Path

from speechbrain_vae.dataio.manifests import read_manifest

_TSV_COLUMNS = ("utt", "start_s", "end_s", "phone")


def read_alignment(path: str | Path):
    """Phone times of every utterance of a corpus, whatever the format.

    Arguments
    ---------
    path : str or Path
        A manifest (``.json``), a CTM (``.ctm``), a table (``.tsv`` or ``.tsv.gz`` with
        the columns utt, start_s, end_s and phone), or a folder of TIMIT's ``.PHN`` or
        of ``.TextGrid`` files, an utterance each, named after it.

    Returns
    -------
    dict of str to list
        ``[start, end, phone]`` in seconds, in the order of time, by utterance.

    Raises
    ------
    ValueError, FileNotFoundError
        There is no alignment, or not one of these formats.

    Example
    -------
    >>> path = getfixture("tmp_path") / "phones.ctm"
    >>> _ = path.write_text("a 1 0.0 0.1 K\\na 1 0.1 0.2 AE\\n")
    >>> read_alignment(path)["a"][1][2]
    'AE'
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no alignment {path}")
    if path.is_dir():
        times = _read_folder(path)
    elif path.name.lower().endswith(".json"):
        times = {
            utt: entry["phone_times"]
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
    return {utt: sorted(entries) for utt, entries in times.items()}


def _read_folder(folder):
    times = {}
    readers = {".textgrid": read_textgrid, ".phn": read_phn}
    for path in sorted(folder.rglob("*")):
        reader = readers.get(path.suffix.lower())
        if reader is None:
            continue
        # Where TIMIT's own sentences of different speakers share a name.
        utt = path.stem
        if reader is read_phn:
            utt = f"{path.parent.name}_{path.stem}".lower()
        if utt in times:
            raise ValueError(f"{folder}: two files are named {utt}")
        times[utt] = reader(path)
    return times


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
    for number, fields in _lines(path, least=3):
        start, end = _numbers(path, number, fields[:2])
        rows.append([start / sample_rate, end / sample_rate, fields[2]])
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
    for number, fields in _lines(path, least=5):
        start, duration = _numbers(path, number, fields[2:4])
        times[fields[0]].append([start, round(start + duration, 6), fields[4]])
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
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    times = defaultdict(list)
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t")
        missing = [
            name for name in _TSV_COLUMNS if name not in (reader.fieldnames or ())
        ]
        if missing:
            raise ValueError(f"{path}: column {missing[0]} is missing")
        for row in reader:
            utt, *span, phone = (row[name] for name in _TSV_COLUMNS)
            start, end = _numbers(path, reader.line_num, span)
            times[utt].append([start, end, phone])
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
        There is no such tier.
    """
    data = Path(path).read_bytes()
    utf16 = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    text = data.decode("utf-16" if utf16 else "utf-8-sig")
    # Both forms are the same values in the same order: the long one adds their names.
    tokens = re.findall(r'"(?:[^"]|"")*"|(?<![^\s])[-+.\d][-+.\deE]*(?![^\s])', text)
    kinds = ('"IntervalTier"', '"TextTier"')
    begins = [i for i, token in enumerate(tokens) if token in kinds]
    names = []
    for begin, end in zip(begins, begins[1:] + [len(tokens)], strict=True):
        name = tokens[begin + 1].strip('"')
        names.append(name)
        if tokens[begin] != kinds[0] or not name.lower().endswith(tier.lower()):
            continue
        # Kind, name, start, end and number of intervals; then three values each.
        values = tokens[begin + 5 : end]
        rows = zip(values[::3], values[1::3], values[2::3], strict=True)
        return [
            [float(first), float(last), label[1:-1].replace('""', '"').strip()]
            for first, last, label in rows
            if label[1:-1].strip()
        ]
    raise ValueError(
        f"{path}: no interval tier {tier!r}; it has {', '.join(names) or 'none'}"
    )


def _lines(path, least):
    """Number and fields of each line that is neither empty nor a comment."""
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        if len(fields) < least:
            raise ValueError(
                f"{path}, line {number}: {least} fields expected; got {len(fields)}"
            )
        yield number, fields


def _numbers(path, number, fields):
    try:
        return [float(field) for field in fields]
    except (TypeError, ValueError):
        raise ValueError(
            f"{path}, line {number}: times must be numbers; got {' and '.join(fields)}"
        ) from None
