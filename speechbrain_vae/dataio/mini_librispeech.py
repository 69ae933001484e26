"""Mini LibriSpeech: 5 hours to train and 2 to develop, of LibriSpeech.

https://www.openslr.org/31, CC BY 4.0.

Layout: that of LibriSpeech, with the subsets ``train-clean-5`` and ``dev-clean-2``.
"""

import logging
import os
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from .librispeech import find_root, read_subset
from .manifests import group_by_split, hold_out, printable

logger = logging.getLogger(__name__)

URL = "https://www.openslr.org/resources/31"
SUBSETS = ("train-clean-5", "dev-clean-2")


def splits(
    data_folder: str | Path, seed: int = 1234, download: bool = False
) -> dict[str, dict]:
    """Train on ``train-clean-5``; half of the speakers of ``dev-clean-2`` are test.

    Arguments
    ---------
    data_folder : str or Path
        ``LibriSpeech``, or the folder that holds it.
    seed : int
        Seed of the choice of the test speakers.
    download : bool
        Fetch the subsets that are missing, 460 MB for both.

    Returns
    -------
    dict of str to dict
        Entries of ``train``, ``valid`` and ``test``, with ``words``.

    Raises
    ------
    ValueError, FileNotFoundError
        A subset is not there, or cannot be fetched.

    Example
    -------
    >>> splits("/nowhere")
    Traceback (most recent call last):
      ...
    FileNotFoundError: mini_librispeech: the data folder /nowhere does not exist; ...
    """
    if download:
        fetch(data_folder)
    try:
        root = find_root(data_folder, "mini_librispeech", SUBSETS)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(
            f"{error}; the option download: True fetches the corpus from {URL}"
        ) from None
    train, dev = (read_subset(root / subset) for subset in SUBSETS)
    speakers = {entry["spk_id"] for entry in dev.values()}
    test = hold_out(speakers, 0.5, seed)

    def split_of(utt, entry):
        if utt in train:
            return "train"
        return "test" if entry["spk_id"] in test else "valid"

    return group_by_split({**train, **dev}, split_of)


def fetch(data_folder: str | Path, url: str = URL):
    """Download and unpack the subsets that are missing.

    Arguments
    ---------
    data_folder : str or Path
        Where ``LibriSpeech`` goes; made if missing.
    url : str
        Where the archives lie.

    Raises
    ------
    ValueError
        No connection, or a broken archive.

    Example
    -------
    >>> folder = getfixture("tmp_path")
    >>> for subset in SUBSETS:
    ...     (folder / "LibriSpeech" / subset).mkdir(parents=True)
    >>> fetch(folder)  # nothing to do
    """
    if not data_folder:
        raise ValueError("mini_librispeech: say with data_folder where to download to")
    folder = Path(os.path.abspath(os.path.expanduser(data_folder)))
    if not (folder / SUBSETS[0]).is_dir():
        folder = folder / "LibriSpeech"
    folder.mkdir(parents=True, exist_ok=True)
    for subset in SUBSETS:
        if not (folder / subset).is_dir():
            _fetch_subset(f"{url}/{subset}.tar.gz", folder, subset)


def _fetch_subset(address, folder, subset):
    # Unpacked aside and then moved, so that an interruption leaves no half corpus.
    logger.info("Downloading %s to %s", address, printable(folder))
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as aside:
        archive = os.path.join(aside, "archive.tar.gz")
        try:
            with (
                urllib.request.urlopen(address, timeout=60) as source,
                open(archive, "wb") as target,
            ):
                shutil.copyfileobj(source, target, 1 << 20)
            with tarfile.open(archive) as tar:
                tar.extractall(aside, filter="data")
            os.replace(os.path.join(aside, "LibriSpeech", subset), folder / subset)
        except (OSError, EOFError, tarfile.TarError) as error:
            raise ValueError(
                f"mini_librispeech: {address} could not be fetched ({error}); download "
                f"it by hand and unpack it into {printable(folder.parent)}"
            ) from error
