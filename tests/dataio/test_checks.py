import os
import re
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from speechbrain_vae.dataio import checks
from speechbrain_vae.dataio.checks import Checked, Job


def job(path, folder, **changes):
    values = {"sample_rate": 16000, "min_seconds": 0.1, "max_seconds": 30.0}
    values.update(changes)
    return Job(str(path), str(folder / "converted"), **values)


def spoilt(folder, name, recording):
    """A file with one fault, named after it."""
    path = folder / f"{name}.wav"
    if name == "text":
        path.write_text("to whom it may concern\n" * 100)
    elif name == "empty":
        path.touch()
    elif name == "header":
        soundfile.write(path, np.zeros(0), 16000)
    elif name == "silent":
        soundfile.write(path, np.zeros(16000), 16000)
    elif name == "offset":
        soundfile.write(path, np.full(16000, 0.3), 16000)
    elif name == "short":
        recording(path, seconds=0.05)
    elif name == "nan":
        wav = np.random.default_rng(0).normal(size=16000)
        wav[7] = np.nan
        soundfile.write(path, wav, 16000, subtype="FLOAT")
    elif name == "truncated_wav":
        recording(path, seconds=3.0)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "truncated":
        path = recording(folder / "whole.flac", seconds=3.0)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "truncated_mp3":
        path = recording(folder / "whole.mp3", seconds=3.0)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif name == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    "name, reason",
    [
        ("text", "not decodable"),
        ("empty", "empty file"),
        ("header", "no samples"),
        ("silent", "silent"),
        ("offset", "silent"),
        ("short", "too short: 0.050 s"),
        ("nan", "non-finite samples"),
        ("truncated", "not decodable|truncated"),
        ("truncated_mp3", "truncated"),
        ("truncated_wav", "truncated: 1.5 of 3.0 s are there"),
        ("missing", "missing file"),
        ("folder", "a folder"),
    ],
)
def test_every_fault_has_its_reason(tmp_path, recording, name, reason):
    found = checks.check_file(job(spoilt(tmp_path, name, recording), tmp_path))
    assert found.parts == ()
    assert found.reason and re.match(reason, found.reason)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(tmp_path, recording):
    path = recording(tmp_path / "a.wav")
    path.chmod(0)
    assert checks.check_file(job(path, tmp_path)).reason == "permission denied"


@pytest.mark.parametrize("length", [0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_of_a_stream_that_left_its_length_open_is_whole(
    tmp_path, recording, length
):
    path = recording(tmp_path / "a.wav", seconds=1.0)
    data = path.read_bytes()
    path.write_bytes(data[:40] + length.to_bytes(4, "little") + data[44:])
    assert checks.check_file(job(path, tmp_path)).parts == ((0, 16000),)


def test_a_good_file_stays_where_it_is(tmp_path, recording):
    path = recording(tmp_path / "a.flac", seconds=1.0)
    assert checks.check_file(job(path, tmp_path)) == Checked(str(path), ((0, 16000),))


def test_a_quiet_recording_is_not_silent(tmp_path, recording):
    path = recording(tmp_path / "a.wav", level=1e-3)
    assert checks.check_file(job(path, tmp_path)).reason is None


def test_a_long_file_becomes_equal_parts_without_gaps(tmp_path, recording):
    path = recording(tmp_path / "a.wav", seconds=3.5)
    found = checks.check_file(job(path, tmp_path, max_seconds=1.0))
    lengths = [stop - start for start, stop in found.parts]
    assert len(lengths) == 4 and max(lengths) - min(lengths) <= 1
    assert found.parts[0][0] == 0 and found.parts[-1][1] == 56000
    assert all(a[1] == b[0] for a, b in zip(found.parts, found.parts[1:], strict=False))


def test_silent_parts_of_a_long_file_are_left_out(tmp_path, recording):
    path = recording(tmp_path / "a.wav", seconds=1.0)
    wav, _ = soundfile.read(path)
    soundfile.write(path, np.concatenate([wav, 0 * wav, wav]), 16000)
    found = checks.check_file(job(path, tmp_path, max_seconds=1.0))
    assert found.parts == ((0, 16000), (32000, 48000)) and found.silent_parts == 1


def test_a_long_lossy_file_is_converted_so_that_positions_are_exact(
    tmp_path, recording
):
    path = recording(tmp_path / "a.mp3", seconds=3.0)
    assert checks.check_file(job(path, tmp_path)).wav == str(path)
    found = checks.check_file(job(path, tmp_path, max_seconds=1.0))
    assert found.wav.endswith(".flac") and len(found.parts) == 3


def crash_on_bad(job):
    if "bad" in job.wav:
        os._exit(1)
    return Checked(job.wav, ((0, 1),))


def test_a_crash_of_the_decoder_costs_one_file(tmp_path):
    jobs = [job(f"{index}{'bad' * (index == 20)}", tmp_path) for index in range(40)]
    found = checks.check_files(jobs, workers=2, check=crash_on_bad)
    assert [one.wav for one in found] == [one.wav for one in jobs]
    assert [one.reason for one in found if one.reason] == ["the decoder crashed"]


def test_workers_and_one_process_find_the_same(tmp_path, recording):
    jobs = [job(recording(tmp_path / f"{i}.wav", seed=i), tmp_path) for i in range(40)]
    (tmp_path / "3.wav").write_text("spoilt")
    alone = checks.check_files(jobs, workers=1)
    assert checks.check_files(jobs, workers=2) == alone
    assert [index for index, one in enumerate(alone) if one.reason] == [3]


def test_workers_do_not_run_the_main_script(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import os, sys\n"
        "from speechbrain_vae.dataio.checks import Job, check_files\n"
        "if 'LOADED' in os.environ:\n"
        "    sys.exit('imported again')\n"
        "os.environ['LOADED'] = '1'\n"
        "if __name__ == '__main__':\n"
        f"    one = Job('{tmp_path}/a.wav', '{tmp_path}/a', 16000, 0.1, None)\n"
        "    print({found.reason for found in check_files([one] * 99, workers=2)})\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'missing file'}\n"
