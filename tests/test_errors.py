"""What a user reads when something is in the way."""

import errno
import os
import subprocess
import sys

import pytest

from speechbrain_vae.errors import one_line_errors


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room, and give the same command again"),
        (errno.EROFS, "another folder, one that can be written"),
        (errno.EACCES, "change its permissions"),
    ],
)
def test_errors_of_the_disk_say_what_to_do(number, advice):
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise OSError(number, os.strerror(number), "/somewhere/save")
    line = str(end.value)
    assert line.startswith(f"error: {os.strerror(number)}: /somewhere/save; ")
    assert advice in line and "\n" not in line


def test_an_interruption_is_no_failure(capsys):
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise KeyboardInterrupt
    assert end.value.code == 130
    said = capsys.readouterr().err
    assert said == "interrupted; give the same command again to go on\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("the model"),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_lack_of_memory_says_what_to_do(error):
    words = "^error: out of memory .*shorter batches"
    with pytest.raises(SystemExit, match=words), one_line_errors():
        raise error


def test_other_errors_of_the_program_keep_their_traceback():
    with pytest.raises(RuntimeError, match="a bug"), one_line_errors():
        raise RuntimeError("a bug")


def test_a_key_that_is_missing_is_called_a_key():
    words = "the YAML has no key corpus"
    with pytest.raises(SystemExit, match=words), one_line_errors():
        raise KeyError("corpus")


def test_a_line_cannot_steer_the_terminal():
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise ValueError("fine\x1b[2J\n\u202e")
    assert str(end.value) == r"error: fine\x1b[2J \u202e"


def test_help_comes_without_pytorch():
    code = "import sys, speechbrain_vae.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
