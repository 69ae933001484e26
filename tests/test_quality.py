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


@pytest.mark.parametrize("module", ["", ".inference", ".lobes.frozen", ".extraction"])
def test_importing_warns_of_nothing(module):
    command = f"import speechbrain_vae{module}"
    assert said("-W", "error", "-c", command) == (0, "")


def test_the_command_line_starts_without_the_packages_of_extras():
    hide = "import sys; sys.modules.update(h5py=None, kaldiio=None, sklearn=None)"
    code = f"{hide}; from speechbrain_vae.cli import main; main(['--help'])"
    status, output = said("-W", "error", "-c", code)
    assert status == 0 and output.startswith("usage: speechbrain-vae")


def test_types_agree():
    status, output = said("-m", "mypy", "--no-error-summary")
    assert (status, output) == (0, "")
