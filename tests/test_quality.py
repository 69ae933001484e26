"""What importing and checking the package say: nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def said(*command):
    """Exit status and output of Python run with these arguments."""
    run = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True
    )
    return run.returncode, (run.stdout + run.stderr).strip()


EVERY_MODULE = """
import importlib, pkgutil, sys, speechbrain_vae
for module in pkgutil.walk_packages(speechbrain_vae.__path__, "speechbrain_vae."):
    importlib.import_module(module.name)
print(sum(name.startswith("speechbrain_vae.") for name in sys.modules))
"""


# What torchaudio 2.8 says of a function that ``import speechbrain`` calls.
OF_TORCHAUDIO = "ignore:torchaudio._backend.list_audio_backends:UserWarning"


def test_importing_warns_of_nothing():
    status, output = said("-W", "error", "-W", OF_TORCHAUDIO, "-c", EVERY_MODULE)
    files = (ROOT / "speechbrain_vae").rglob("*.py")
    assert (status, output) == (0, str(len(list(files)) - 1))


def test_the_command_line_starts_without_the_packages_of_extras():
    hide = "import sys; sys.modules.update(h5py=None, kaldiio=None, sklearn=None)"
    code = f"{hide}; from speechbrain_vae.cli import main; main(['--help'])"
    status, output = said("-W", "error", "-c", code)
    assert status == 0 and output.startswith("usage: speechbrain-vae")


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_code_is_in_style(command):
    status, output = said("-m", "ruff", *command, "--quiet", ".")
    assert (status, output) == (0, "")


def test_types_agree():
    status, output = said("-m", "mypy", "--no-error-summary")
    assert (status, output) == (0, "")
