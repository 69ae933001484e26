"""What a user reads when something outside of the program is in the way."""

import errno
import os

import pytest

from speechbrain_vae.pretraining import one_line_errors


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
