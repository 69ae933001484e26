"""Two runs in one folder."""

import os
import signal
import subprocess
import sys

import pytest

from speechbrain_vae.run_lock import RunLockError, hold_run_lock, run_lock

HOLD = """
import sys, os
from speechbrain_vae.run_lock import hold_run_lock
hold_run_lock(sys.argv[1])
if os.fork() == 0:
    sys.stdin.read()
print(os.getpid(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_run(tmp_path):
    """Another process that has the folder, and a child of it that outlives it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "run")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()
    yield process
    process.stdin.close()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_and_told_of_the_first(other_run, tmp_path):
    with pytest.raises(RunLockError) as error, run_lock(tmp_path / "run"):
        pass
    assert f"process {other_run.pid} on" in str(error.value)
    # Commands name theirs differently.
    assert "another output folder" in str(error.value)


def test_what_a_killed_run_leaves_stops_nobody(other_run, tmp_path):
    os.kill(other_run.pid, signal.SIGKILL)
    os.waitpid(other_run.pid, 0)
    with run_lock(tmp_path / "run"):
        pass


def test_other_folders_are_free(other_run, tmp_path):
    with run_lock(tmp_path / "another"):
        pass


def test_a_process_may_ask_twice_and_keeps_the_folder(tmp_path):
    with run_lock(tmp_path):
        hold_run_lock(tmp_path)
        with run_lock(tmp_path):
            pass
        command = "import sys; from speechbrain_vae.run_lock import hold_run_lock as h"
        done = subprocess.run(
            [sys.executable, "-c", f"{command}; h(sys.argv[1])", str(tmp_path)],
            capture_output=True,
            text=True,
        )
        assert f"process {os.getpid()}" in done.stderr
