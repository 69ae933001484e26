"""Publish an export on the Hugging Face Hub, and fetch one.

> python -m speechbrain_vae.hub push results/vae/1234/export ann/vae --license cc-by-4.0
> python -m speechbrain_vae.hub pull ann/vae vae
"""

import argparse
import contextlib
import re
import sys
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils import validate_repo_id

from speechbrain_vae.errors import one_line_errors
from speechbrain_vae.export import CARD, FIGURE, LOADABLES, YAML, read_export
from speechbrain_vae.model_card import published_card
from speechbrain_vae.weights import EXTENSION

LICENCE = "LICENSE"
LICENCES = {
    "apache-2.0": ("Apache License 2.0", "https://www.apache.org/licenses/LICENSE-2.0"),
    "mit": ("MIT License", "https://opensource.org/license/mit"),
    "cc0-1.0": ("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "cc-by-4.0": ("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/"),
    "cc-by-sa-4.0": ("CC BY-SA 4.0", "https://creativecommons.org/licenses/by-sa/4.0/"),
    "cc-by-nc-4.0": ("CC BY-NC 4.0", "https://creativecommons.org/licenses/by-nc/4.0/"),
}
FILES = (YAML, *(f"{name}{EXTENSION}" for name in LOADABLES))


class HubError(ValueError):
    """The Hub did not do what was asked; the message says why and what to do."""


def push(
    folder: str | Path,
    repo_id: str,
    licence: str | None = None,
    private: bool = False,
    trust_code: bool = False,
) -> str:
    """Publish an export, in one commit; the repository is made where it is missing.

    A model that is there already is updated.

    Arguments
    ---------
    folder : str or Path
        The export.
    repo_id : str
        ``user/name``.
    licence : str, optional
        One of :data:`LICENCES`, for the weights; the one that a LICENSE in the export
        names where it is not given. What they were trained on may leave less choice
        than one would like.
    private : bool
        Whether its owner alone may see it; a public repository is then refused.
    trust_code : bool
        As for :func:`speechbrain_vae.export.read_export`.

    Returns
    -------
    str
        Where it is.

    Raises
    ------
    ExportError, HubError
    """
    _check_id(repo_id)
    folder = Path(folder)
    if not folder.is_dir():
        raise HubError(f"there is no folder {folder}; give one written by train.py")
    for name in (*FILES, CARD, LICENCE, FIGURE):
        _refuse_link_out(folder, name)
    licence = licence or _licence_of(folder)
    if licence not in LICENCES:
        raise HubError(
            f"give the licence of the weights, --license {', '.join(LICENCES)}; got "
            f"{licence or 'none, and no LICENSE in the export names one'}"
        )
    # What cannot be loaded is not worth an upload.
    read_export(folder, trust_code=trust_code)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise HubError(
            f"{folder} is an export of an older version, without {missing[0]}; give "
            "the command that trained it again to write a new one"
        )
    if not (folder / CARD).is_file():
        raise HubError(
            f"{folder} has no model card {CARD}; write one, or give the command that "
            "trained it again to write a new export"
        )
    card = _text(folder / CARD)
    contents: dict[str, Path | bytes] = {name: folder / name for name in FILES}
    contents[CARD] = published_card(card, repo_id, licence).encode()
    contents[LICENCE] = licence_text(licence, folder).encode()
    if (folder / FIGURE).is_file():
        contents[FIGURE] = folder / FIGURE
    api = HfApi()
    with _hub_errors(repo_id, "upload to"):
        api.create_repo(repo_id, private=private, exist_ok=True)
        public = private and not api.model_info(repo_id).private
    if public:
        raise HubError(
            f"{repo_id} exists and is public, nothing was uploaded; give another name, "
            "or make it private in its settings on the Hub"
        )
    with _hub_errors(repo_id, "upload to"):
        api.create_commit(
            repo_id,
            [CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message="Export of speechbrain-vae",
        )
    return f"{api.endpoint}/{repo_id}"


def pull(repo_id: str, folder: str | Path, trust_code: bool = False) -> Path:
    """Fetch a published export, and check that it loads.

    Arguments
    ---------
    repo_id : str
        ``user/name``.
    folder : str or Path
        Where to. Files that are there already and have not changed are kept.
    trust_code : bool
        As for :func:`speechbrain_vae.export.read_export`.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ExportError, HubError
    """
    _check_id(repo_id)
    if Path(folder).exists() and not Path(folder).is_dir():
        raise HubError(f"{folder} is a file; give a folder to write to")
    names = [*FILES, CARD, LICENCE, FIGURE, *(f"{name}.ckpt" for name in LOADABLES)]
    with _hub_errors(repo_id, "download from"):
        # Of one commit. Asked for first: without an answer the client would take what
        # is in the folder for the model.
        commit = HfApi().model_info(repo_id).sha
        huggingface_hub.snapshot_download(
            repo_id, revision=commit, local_dir=folder, allow_patterns=names
        )
    read_export(folder, trust_code=trust_code)
    return Path(folder)


def licence_text(licence, folder):
    """The LICENSE of a published export; one that is there stays.

    Arguments
    ---------
    licence : str
        One of :data:`LICENCES`.
    folder : str or Path
        The export; a LICENSE in it that names another of these is refused.

    Returns
    -------
    str

    Example
    -------
    >>> print(licence_text("mit", getfixture("tmp_path")))
    SPDX-License-Identifier: MIT
    <BLANKLINE>
    The weights in this repository are under the MIT License:
    https://opensource.org/license/mit
    <BLANKLINE>
    """
    own = Path(folder) / LICENCE
    if own.exists():
        named = _licence_of(folder)
        if named in LICENCES.keys() - {licence}:
            raise HubError(
                f"{own} says {named}, and you gave {licence}: give --license {named}, "
                "or delete the file if you may license the weights"
            )
        return _text(own)
    name, url = LICENCES[licence]
    return (
        f"SPDX-License-Identifier: {_spdx(licence)}\n\n"
        f"The weights in this repository are under the {name}:\n{url}\n"
    )


def _licence_of(folder):
    """The licence that the LICENSE of an export names, in lower case."""
    own = Path(folder) / LICENCE
    text = _text(own) if own.exists() else ""
    named = re.search(r"^SPDX-License-Identifier: *(\S+)", text, re.MULTILINE)
    return named and named[1].lower()


def _check_id(repo_id):
    try:
        validate_repo_id(repo_id)
        # Names without a user are models of the Hub's first years.
        right = repo_id.count("/") == 1
    except HFValidationError:
        right = False
    if not right:
        raise HubError(f"the ID of a model must be like user/name; got {repo_id!r}")


def _refuse_link_out(folder, name):
    # A link in an export of somebody else could publish any file of this machine.
    path = (folder / name).resolve()
    # huggingface_hub keeps a model as links into the folder of its contents.
    places = folder.resolve(), (folder / "../../blobs").resolve()
    if path.parent not in places:
        raise HubError(
            f"{folder / name} is a link to {path}, outside of the export; put the file "
            "there if it is to be published"
        )


def _text(path):
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise HubError(f"{path} is not text in UTF-8; save it as that") from None


def _spdx(licence):
    return licence.upper().replace("APACHE", "Apache")


@contextlib.contextmanager
def _hub_errors(repo_id, action):
    """Turn what the Hub and the network answer into one line."""
    try:
        yield
    except Exception as error:
        raise HubError(f"cannot {action} {repo_id}: {_reason(error)}") from error


def _reason(error):
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 401 or isinstance(error, RepositoryNotFoundError):
        return (
            "there is no such model, or it is private; check the name and log in "
            "with: hf auth login"
        )
    if status == 403:
        return "your token may not do this; hf auth login with one that may write"
    detail = " ".join(str(error).split())[:300]
    if status is not None:
        return f"the Hub answered {status}: {detail}"
    return f"{type(error).__name__}: {detail}; check the network and HF_ENDPOINT"


def main(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m speechbrain_vae.hub",
        description="Publish an export on the Hugging Face Hub, or fetch one.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    upload = commands.add_parser("push", help="publish an export")
    upload.add_argument("export", help="folder written by train.py")
    upload.add_argument("repo_id", help="user/name")
    upload.add_argument(
        "--license",
        dest="licence",
        choices=sorted(LICENCES),
        help="of the weights, where no LICENSE in the export says it; what they were "
        "trained on may restrict it",
    )
    upload.add_argument("--private", action="store_true", help="for you alone")
    download = commands.add_parser("pull", help="fetch a published export")
    download.add_argument("repo_id", help="user/name")
    download.add_argument("folder", help="where to")
    for command in (upload, download):
        command.add_argument(
            "--trust-code",
            action="store_true",
            help="let the export name any class; it then runs with your rights",
        )
    args = parser.parse_args(argv)
    with one_line_errors():
        if args.command == "push":
            options = args.licence, args.private, args.trust_code
            print(push(args.export, args.repo_id, *options))
        else:
            print(pull(args.repo_id, args.folder, args.trust_code))


if __name__ == "__main__":
    main(sys.argv[1:])
