"""What the corpora share: splits, tables, identifiers, manifests on disk.

Nothing here depends on the machine, on the order in which a directory lists
its files, or on ``PYTHONHASHSEED``: every choice is an order of SHA-256 hashes.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import unicodedata
from collections import Counter
from pathlib import Path

logger = logging.getLogger(__name__)

AUDIO_EXTENSIONS = (".wav", ".flac", ".ogg", ".opus", ".mp3")
AUDIO_FORMATS = "WAV, FLAC, OGG, Opus or MP3"
"""The same, for messages."""

UNREAD_EXTENSIONS = (
    *(".3gp", ".aac", ".aif", ".aiff", ".amr", ".au", ".caf", ".m4a", ".m4b", ".mov"),
    *(".mp4", ".pcm", ".raw", ".shn", ".sph", ".webm", ".wma"),
)
"""Of recordings too, in formats that are not read."""

SPLITS = ("train", "valid", "test")

GENERATED_MARKER = ".speechbrain_vae_generated"
"""A folder holding a file of this name was written by the package, not recorded."""

_MAX_ID_LENGTH = 120
_MAX_NAME_LENGTH = 200
"""Longer than an identifier of :func:`safe_ids`, with its hash and part."""


def stable_hash(text: str, seed: int | str = 0) -> str:
    """SHA-256 of a text and a seed, as hexadecimal digits.

    Arguments
    ---------
    text : str
        Any text; composed and decomposed Unicode give the same hash.
    seed : int or str
        Another seed gives an unrelated hash.

    Returns
    -------
    str
        64 hexadecimal digits.

    Example
    -------
    >>> stable_hash("speaker1", seed=3)[:8] == stable_hash("speaker1", seed=4)[:8]
    False
    """
    text = unicodedata.normalize("NFC", f"{seed}:{text}")
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def hold_out(items, fraction: float, seed: int | str, minimum: int = 1):
    """Choose a share of the items by the order of their hashes.

    Arguments
    ---------
    items : iterable of str
        Speakers, paths or the like; their order does not matter.
    fraction : float
        Share of the items to choose, in [0, 1].
    seed : int or str
        Seed of the choice.
    minimum : int
        Choose at least so many when ``fraction`` is above 0.

    Returns
    -------
    set of str
        The chosen items.

    Example
    -------
    >>> len(hold_out([f"s{i}" for i in range(80)], 0.1, seed=1234))
    8
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"a fraction lies between 0 and 1, got {fraction}")
    items = sorted(set(items), key=lambda item: stable_hash(item, seed))
    count = max(minimum, round(fraction * len(items))) if fraction else 0
    return set(items[:count])


def assign_splits(
    units, valid_fraction: float = 0.1, test_fraction: float = 0.1, seed: int = 1234
) -> dict[str, str]:
    """Divide units (speakers, files) among train, valid and test.

    Arguments
    ---------
    units : iterable of str
        What must not be in two splits at once.
    valid_fraction, test_fraction : float
        Shares of the units; each split with a share above 0 gets one at least.
    seed : int
        Seed of the choice.

    Returns
    -------
    dict of str to str
        The name of the split of each unit.

    Example
    -------
    >>> sorted(assign_splits(["ann", "bob", "cid"]).values())
    ['test', 'train', 'valid']
    """
    units = set(units)
    needed = 1 + bool(valid_fraction) + bool(test_fraction)
    if len(units) < needed:
        raise ValueError(
            f"{len(units)} unit(s) cannot fill {needed} splits; give more data, or a "
            "valid_fraction or test_fraction of 0"
        )
    if valid_fraction + test_fraction >= 1:
        raise ValueError(
            "valid_fraction + test_fraction must leave something to train on, got "
            f"{valid_fraction} + {test_fraction}"
        )
    test = hold_out(units, test_fraction, seed)
    share = valid_fraction / (1 - test_fraction)
    valid = hold_out(units - test, share, f"{seed}/valid")
    names = {unit: "train" for unit in units}
    names.update({unit: "test" for unit in test})
    names.update({unit: "valid" for unit in valid})
    return names


def group_by_split(entries: dict[str, dict], split_of) -> dict[str, dict]:
    """Sort entries into splits.

    Arguments
    ---------
    entries : dict of str to dict
        Manifest entries.
    split_of : callable
        Gives the name of the split from the identifier and the entry, or ``None``
        for an entry that belongs to none.

    Returns
    -------
    dict of str to dict
        ``train``, ``valid`` and ``test``, each in the order of the identifiers.

    Example
    -------
    >>> group_by_split({"b": {}, "a": {}}, lambda utt, entry: "train")["train"]
    {'a': {}, 'b': {}}
    """
    result: dict[str, dict] = {name: {} for name in SPLITS}
    for utt in sorted(entries):
        name = split_of(utt, entries[utt])
        if name is not None:
            result[name][utt] = entries[utt]
    return result


def read_kaldi_table(path: str | Path) -> dict[str, str]:
    """Read a Kaldi table: one line an entry, a key and the rest of the line.

    Arguments
    ---------
    path : str or Path
        A file such as ``text``, ``utt2spk`` or ``wav.scp``.

    Returns
    -------
    dict of str to str
        Value of each key; an empty string where the line has a key alone.

    Raises
    ------
    ValueError
        Two lines disagree about a key.

    Example
    -------
    >>> path = getfixture("tmp_path") / "utt2spk"
    >>> _ = path.write_text("utt1 ann\\nutt2\\tbob\\n")
    >>> read_kaldi_table(path)
    {'utt1': 'ann', 'utt2': 'bob'}
    """
    table: dict[str, str] = {}
    for line in Path(path).read_text(encoding="utf-8-sig").splitlines():
        key, *value = line.split(maxsplit=1)[:2] if line.strip() else (None,)
        if key is None:
            continue
        text = value[0].strip() if value else ""
        if table.setdefault(key, text) != text:
            raise ValueError(
                f"{path} has two lines for {key}, {table[key]!r} and {text!r}; "
                "remove one of them"
            )
    return table


def audio_files(
    folder: str | Path,
    extensions: tuple[str, ...] = AUDIO_EXTENSIONS,
    name_unread: bool = False,
):
    """Every audio file below a folder, in a fixed order.

    Links are followed, and a file reached twice is given once, by its own path
    rather than a link. Hidden files and folders are left out, and folders that this
    package itself filled with converted audio.

    Arguments
    ---------
    folder : str or Path
        Root of the tree.
    extensions : tuple of str
        Extensions in lower case, compared without regard to case.
    name_unread : bool
        Whether a warning says of recordings in other formats that they are left out.

    Returns
    -------
    list of tuple
        Pairs of the absolute path and the path relative to ``folder`` with
        forward slashes.

    Raises
    ------
    PermissionError
        A folder cannot be read.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> (folder / "B.WAV").touch(); (folder / "a.txt").touch()
    >>> [relative for _, relative in audio_files(folder)]
    ['B.WAV']
    """
    folder = os.path.abspath(folder)
    found: dict[str, str] = {}
    links, seen = [], set()
    unread: Counter[str] = Counter()
    roots = [folder]  # the tree itself, then the folders its links lead to
    while roots:
        for parent, folders, names in os.walk(roots.pop(0), onerror=_refuse_locked):
            identity = os.path.realpath(parent)
            if identity in seen or GENERATED_MARKER in names:
                folders.clear()
                continue
            seen.add(identity)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            below = (os.path.join(parent, name) for name in folders)
            roots.extend(path for path in below if os.path.islink(path))
            for name in sorted(names):
                if name.startswith("."):
                    continue
                if not name.lower().endswith(extensions):
                    unread[os.path.splitext(name)[1].lower()] += 1
                    continue
                path = os.path.join(parent, name)
                if os.path.islink(path):
                    links.append(path)
                else:
                    found.setdefault(os.path.realpath(path), path)
    for path in links:
        found.setdefault(os.path.realpath(path), path)
    if name_unread and (others := sorted(unread.keys() & {*UNREAD_EXTENSIONS})):
        logger.warning(
            "%s: %d files in formats that are not read (%s) are left out; convert them "
            "to WAV or FLAC to use them",
            printable(folder),
            sum(unread[extension] for extension in others),
            ", ".join(others),
        )
    pairs = (
        (path, os.path.relpath(path, folder).replace(os.sep, "/"))
        for path in found.values()
    )
    return sorted(pairs, key=lambda pair: pair[1])


def _refuse_locked(error):
    # Of a corpus that is only half there nobody would know.
    if isinstance(error, PermissionError):
        raise error


def safe_ids(relative_paths) -> dict[str, str]:
    """A unique identifier for each path, usable as a file name anywhere.

    Arguments
    ---------
    relative_paths : iterable of str
        Paths with forward slashes; the extension is dropped.

    Returns
    -------
    dict of str to str
        Identifier of each path: letters, digits, ``.``, ``_`` and ``-``. A piece of
        the hash of the path is added where two would be alike or characters were lost,
        and a longer one where that is alike as well.

    Example
    -------
    >>> safe_ids(["ann/01.wav", "bob/01.wav"])
    {'ann/01.wav': 'ann-01', 'bob/01.wav': 'bob-01'}
    """
    relative_paths = list(relative_paths)
    plain, lossy = {}, {}
    count: Counter[str] = Counter()
    for path in relative_paths:
        stem = os.path.splitext(path)[0].replace("/", "-")
        name = re.sub(r"[^A-Za-z0-9._-]", "_", stem)[:_MAX_ID_LENGTH].lstrip(".")
        plain[path] = name or "audio"
        lossy[path] = name != stem
        count[plain[path].lower()] += 1
    ids = {
        path: f"{name}-{stable_hash(path)[:8]}"
        if lossy[path] or count[name.lower()] > 1
        else name
        for path, name in plain.items()
    }
    # Of 100,000 names of one length in Chinese, say, two have the same short hash.
    count = Counter(utt.lower() for utt in ids.values())
    return {
        path: utt
        if count[utt.lower()] == 1
        else f"{plain[path]}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:32]}"
        for path, utt in ids.items()
    }


def safe_name(text: str) -> str:
    """What of an identifier may stand in the name of a file, whoever chose it.

    Other identifiers may give the same name: add a hash where that matters.

    Arguments
    ---------
    text : str
        An identifier, of a Kaldi table for example.

    Returns
    -------
    str
        Letters, digits, ``_`` and ``-``, 200 at most.

    Example
    -------
    >>> safe_name("../bob/1.wav")
    '___bob_1_wav'
    """
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)[:_MAX_NAME_LENGTH]


def resolve_root(
    data_folder: str | Path,
    corpus: str,
    expected: str,
    is_root,
    names: tuple[str, ...] = (),
) -> Path:
    """Find the root of a corpus, or say in one line what was expected there.

    Arguments
    ---------
    data_folder : str or Path
        The folder the user named.
    corpus : str
        Name of the corpus, for the message.
    expected : str
        An example of the layout, for the message.
    is_root : callable
        Whether a folder has that layout.
    names : tuple of str
        Sub-folders to look into when ``data_folder`` itself has not.

    Returns
    -------
    Path
        Absolute path of the first of the folders that has the layout.

    Example
    -------
    >>> resolve_root("/nowhere", "fsdd", "recordings/0_ann_0.wav", Path.is_dir)
    Traceback (most recent call last):
      ...
    FileNotFoundError: fsdd: the data folder /nowhere does not exist; expected one ...
    """
    if data_folder is None or str(data_folder) == "":
        raise ValueError(
            f"{corpus}: no data folder given; pass --data_folder with one that holds "
            f"{expected}"
        )
    root = Path(os.path.abspath(os.path.expanduser(data_folder)))
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise FileNotFoundError(
            f"{corpus}: the data folder {printable(root)} {what}; expected one that "
            f"holds {expected}"
        )
    for candidate in (root, *(root / name for name in names)):
        if candidate.is_dir() and is_root(candidate):
            return candidate
    raise ValueError(
        f"{corpus}: {printable(root)} has another layout; expected {expected}, found "
        f"{describe_folder(root)}"
    )


def describe_folder(folder, limit=5):
    """The first few names of a folder, for a message.

    Example
    -------
    >>> describe_folder(getfixture("tmp_path"))
    'an empty folder'
    """
    names = sorted(
        entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(folder)
    )
    if not names:
        return "an empty folder"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return printable(", ".join(names[:limit]) + more)


def printable(text):
    """A path or message that any terminal and log file can take.

    Example
    -------
    >>> print(printable("a\\udcffb\\x1b[2J.wav"))
    a\\udcffb\\x1b[2J.wav
    """
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in str(text)
    )


@contextlib.contextmanager
def replacing(path: str | Path, mode: str = "w", suffix: str = ".tmp"):
    """Write a file that is there wholly or not at all.

    Arguments
    ---------
    path : str or Path
        What it takes the place of, at the end.
    mode : str
        "w" for text, "wb" for bytes.
    suffix : str
        Of the file until then; one for each process where several may write it.

    Yields
    ------
    file
        Open to write to.

    Example
    -------
    >>> path = getfixture("tmp_path") / "a.txt"
    >>> with replacing(path) as file:
    ...     _ = file.write("a")
    >>> path.read_text()
    'a'
    """
    temporary = Path(f"{path}{suffix}")
    encoding = None if "b" in mode else "utf-8"
    try:
        # A new file: what a link of this name leads to is not ours to write.
        temporary.unlink(missing_ok=True)
        with open(temporary, mode.replace("w", "x"), encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, content: dict):
    """Write a dict as JSON so that it is there whole or not at all.

    Arguments
    ---------
    path : str or Path
        Where to write; the folder exists.
    content : dict
        What to write, with keys of type str.

    Example
    -------
    >>> write_json(getfixture("tmp_path") / "a.json", {"x": 1})
    """
    with replacing(path, suffix=f".{os.getpid()}.tmp") as file:
        # One line an entry: short enough to be quick, and to look through with grep.
        lines = (f"{json.dumps(key)}: {json.dumps(content[key])}" for key in content)
        file.write("{\n" + ",\n".join(lines) + "\n}\n")


def escape_braces(value):
    """Double the braces of every text, since SpeechBrain formats each of them.

    Example
    -------
    >>> escape_braces({"words": "a {noise} b", "n": 1})
    {'words': 'a {{noise}} b', 'n': 1}
    """
    if isinstance(value, str):
        return value.replace("{", "{{").replace("}", "}}")
    if isinstance(value, dict):
        return {key: escape_braces(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [escape_braces(item) for item in value]
    return value


def read_manifest(
    path: str | Path, data_root: str | Path | None = None
) -> dict[str, dict]:
    """Read a manifest with the paths of its audio filled in.

    Arguments
    ---------
    path : str or Path
        A manifest that :func:`speechbrain_vae.dataio.prepare.prepare` wrote.
    data_root : str or Path, optional
        Folder that stands for ``{data_root}``; the data folder of the preparation
        when not given.

    Returns
    -------
    dict of str to dict
        The entries.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> write_json(folder / "train.json", {"a": {"wav": "{data_root}/a.wav"}})
    >>> read_manifest(folder / "train.json", "/data")
    {'a': {'wav': '/data/a.wav'}}
    """
    from speechbrain.dataio.dataio import load_data_json

    path = Path(path)
    if data_root is None:
        stamp = path.parent / "prepare.json"
        if not stamp.is_file():
            raise FileNotFoundError(
                f"{printable(stamp)} does not exist: give data_root, or prepare the "
                "corpus again"
            )
        data_root = json.loads(stamp.read_text(encoding="utf-8"))["data_root"]
    return load_data_json(path, {"data_root": str(data_root)})


def read_manifests(
    folder: str | Path, splits: tuple[str, ...] = SPLITS
) -> dict[str, dict[str, dict]]:
    """Read the manifests of a prepared corpus.

    Arguments
    ---------
    folder : str or Path
        Where :func:`speechbrain_vae.dataio.prepare.prepare` wrote them.
    splits : tuple of str
        Which of ``"train"``, ``"valid"`` and ``"test"``.

    Returns
    -------
    dict of str to dict
        Entries of each split.
    """
    return {split: read_manifest(Path(folder) / f"{split}.json") for split in splits}
