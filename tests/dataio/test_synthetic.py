"""The synthetic corpus: reproducible to the byte, with phone times that are true."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speechbrain_vae.dataio import espeak, synthetic
from speechbrain_vae.dataio.synthetic_grammar import VOCABULARY, sentence, words

pytest.importorskip("espeakng_loader", reason="the extra 'synthetic' is not installed")

ARPABET_39 = set(espeak.PHONES.values())
SPEAKERS, HOURS, SEED = 3, 0.1, 7


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "corpus"
    parts = synthetic.splits(folder, SEED, SPEAKERS, HOURS, workers=2)
    return folder, parts


@pytest.fixture(scope="module")
def entries(corpus):
    return [entry for part in corpus[1].values() for entry in part.values()]


@pytest.fixture(scope="module")
def spectra(entries):
    """Power of all phones and gaps, in dB below the mean of their utterance."""
    found = {"all": [], "high": [], "label": []}
    for entry in entries:
        wav, rate = soundfile.read(entry["wav"])
        level = np.mean(wav**2)
        edge = 0.0
        for start, end, label in [*entry["phone_times"], [len(wav) / rate, None, None]]:
            pieces = [("gap", edge, start)]
            if label is not None:
                pieces += [(label, start, end)]
                edge = end
            for name, a, b in pieces:
                piece = wav[round(a * rate) : round(b * rate)]
                if len(piece) < 0.02 * rate:
                    continue
                power = np.abs(np.fft.rfft(piece)) ** 2
                frequency = np.fft.rfftfreq(len(piece), 1 / rate)
                found["label"].append(name)
                found["all"].append(10 * np.log10(np.mean(piece**2) / level))
                found["high"].append(power[frequency > 3000].sum() / power.sum())
    return {key: np.array(value) for key, value in found.items()}


def test_the_parts_share_no_speaker_and_the_corpus_has_its_length(corpus, entries):
    speakers = [{e["spk_id"] for e in part.values()} for part in corpus[1].values()]
    assert sum(map(len, speakers)) == len(set.union(*speakers)) == SPEAKERS
    seconds = [soundfile.info(entry["wav"]).duration for entry in entries]
    assert sum(seconds) == pytest.approx(3600 * HOURS, abs=3 * SPEAKERS)
    assert min(seconds) >= 2 and max(seconds) <= 6


def test_forty_speakers_are_split_32_4_4_with_women_and_men_everywhere():
    parts = synthetic.choose_speakers(40, seed=0)
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [32, 4, 4]
    assert len(set(sum(parts.values(), []))) == 40
    for part in parts.values():
        assert {espeak.VARIANTS[variant] for variant in part} == {"f", "m"}


def test_audio_is_16_khz_mono_flac(entries):
    for entry in entries:
        info = soundfile.info(entry["wav"])
        assert (info.samplerate, info.channels, info.format) == (16000, 1, "FLAC")
        assert Path(entry["wav"]).is_absolute()


def test_all_39_phones_occur_in_each_part(corpus):
    assert len(ARPABET_39) == 39
    for part in corpus[1].values():
        said = {phone for entry in part.values() for phone in entry["phones"].split()}
        assert said == ARPABET_39


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(
    corpus, tmp_path
):
    folder, parts = corpus
    again = tmp_path / "again"
    others = synthetic.splits(again, SEED, SPEAKERS, HOURS, workers=1)
    assert digests(folder) == digests(again)
    moved = json.dumps(others).replace(str(again), str(folder))
    assert moved == json.dumps(parts)


def test_another_seed_gives_other_sentences(corpus, tmp_path):
    others = synthetic.splits(tmp_path / "other", SEED + 1, SPEAKERS, 0.01)
    said = {e["words"] for part in corpus[1].values() for e in part.values()}
    assert not said & {e["words"] for part in others.values() for e in part.values()}


def test_what_was_said_before_changes_nothing():
    text = "The cook saw a box."
    first = espeak.synthesise(text, "f1", seed=3)
    espeak.synthesise("How can they see six songs?", "klatt4", rate=185, seed=9)
    assert espeak.synthesise(text, "f1", seed=3) == first


def test_times_are_in_order_inside_the_audio_and_match_the_labels(entries):
    for entry in entries:
        duration = soundfile.info(entry["wav"]).duration
        for key, labels in (("phone_times", "phones"), ("word_times", "words")):
            times = entry[key]
            assert [label for _, _, label in times] == entry[labels].split()
            edges = [edge for start, end, _ in times for edge in (start, end)]
            assert edges == sorted(edges)
            assert all(start < end for start, end, _ in times)
            assert edges[0] > 0 and edges[-1] < duration
        phone_edges = {edge for a, b, _ in entry["phone_times"] for edge in (a, b)}
        assert {edge for a, b, _ in entry["word_times"] for edge in (a, b)} <= (
            phone_edges
        )


def test_sibilants_are_high_and_nasals_low(spectra):
    high = {
        label: np.median(spectra["high"][spectra["label"] == label])
        for label in ("S", "Z", "SH", "CH", "M", "N", "AA", "UW")
    }
    low = max(high[label] for label in ("M", "N", "AA", "UW"))
    assert high["S"] > 0.8 and high["CH"] > 0.5
    assert low < 0.1 and high["Z"] > 3 * low


def test_gaps_between_phones_are_silent(spectra):
    gaps = spectra["all"][spectra["label"] == "gap"]
    vowels = spectra["all"][np.isin(spectra["label"], ["AA", "AE", "AY", "OW"])]
    assert len(gaps) > 100
    assert gaps.max() < -20
    assert np.median(vowels) > 0


@pytest.mark.parametrize("label", ["P", "T", "K", "CH"])
def test_voiceless_stops_start_with_their_closure_and_end_with_their_burst(
    entries, label
):
    after_vowel = 0
    for entry in entries:
        wav, rate = soundfile.read(entry["wav"])
        times = entry["phone_times"]
        for before, (start, end, phone) in zip(times, times[1:], strict=False):
            # After a vowel no sound of another consonant reaches into the closure.
            if phone != label or before[2][0] not in "AEIOU" or before[1] != start:
                continue
            after_vowel += 1
            a, b = round(start * rate), round(end * rate)
            power = wav[a:b] ** 2
            closure = power[round(0.005 * rate) : round(0.02 * rate)].mean()
            assert closure < 0.05 * power[(b - a) // 3 :].max()
            vowel = wav[round(before[0] * rate) : a] ** 2
            assert closure < 0.1 * vowel.mean()
    assert after_vowel >= 5


def test_labels_need_their_closures_moved_back():
    text = "A cook saw a happy duck."
    data, events = espeak.synthesise(text, "m3")
    samples = np.frombuffer(data, dtype="=i2")
    phones, _ = espeak.phone_times(samples, events, text)
    reported = [e.sample for e in events if e.phone in ("k", "p")]
    starts = [start for start, _, phone in phones if phone in ("K", "P")]
    assert len(reported) == len(starts) == 4
    for start, burst in zip(starts, reported, strict=True):
        assert 0.03 < (burst - start) / espeak.SAMPLE_RATE < 0.08
        assert not samples[start:burst].any()


def test_every_word_of_the_grammar_has_phone_labels():
    for index, word in enumerate(VOCABULARY):
        variant = list(espeak.VARIANTS)[index % len(espeak.VARIANTS)]
        text = f"{word} {word}."
        data, events = espeak.synthesise(text, variant)
        phones, said = espeak.phone_times(np.frombuffer(data, "=i2"), events, text)
        assert [w for _, _, w in said] == [word, word]
        assert {phone for _, _, phone in phones} <= ARPABET_39


def test_sentences_use_the_vocabulary_alone_and_seldom_repeat():
    said = [sentence(random.Random(seed)) for seed in range(300)]
    assert {word for text in said for word in words(text)} <= set(VOCABULARY)
    assert len(set(said)) > 295


def test_two_phones_in_one_unit_are_refused():
    text = "A little yard."
    data, events = espeak.synthesise(text, "f1")
    with pytest.raises(espeak.PronunciationError, match="not one ARPAbet phone"):
        espeak.phone_times(np.frombuffer(data, "=i2"), events, text)


def test_every_variant_is_a_voice_of_its_own():
    text = "They chose a good boy."
    said = {name: espeak.synthesise(text, name)[0] for name in espeak.VARIANTS}
    assert len(set(said.values())) == len(espeak.VARIANTS)
    assert len({name.lower() for name in espeak.VARIANTS}) == len(espeak.VARIANTS)
    for data in said.values():
        # Exact zeros are what pauses are told by: no echo, no noise in any voice.
        silence = np.frombuffer(data, "=i2") == 0
        assert silence.mean() > 0.05


def test_an_unknown_variant_is_refused():
    with pytest.raises(ValueError, match="unknown variant 'nobody'"):
        espeak.synthesise("A boy.", "nobody")


def test_an_interrupted_generation_keeps_complete_speakers(corpus, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(corpus[0], folder)
    whole = digests(folder)
    (root,) = (path for path in folder.iterdir() if path.is_dir())
    first, second, third = sorted(path for path in root.iterdir() if path.is_dir())
    (root / synthetic.STAMP).unlink()
    (second / synthetic.TABLE).unlink()
    cut = sorted(third.glob("*.flac"))[0]
    cut.write_bytes(cut.read_bytes()[:100])
    kept = {path: path.stat().st_mtime_ns for path in first.iterdir()}
    synthetic.splits(folder, SEED, SPEAKERS, HOURS, workers=2)
    assert digests(folder) == whole
    assert kept == {path: path.stat().st_mtime_ns for path in first.iterdir()}


def test_a_complete_corpus_needs_no_library(corpus, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    folder, parts = corpus
    assert synthetic.splits(folder, SEED, SPEAKERS, HOURS) == parts


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ModuleNotFoundError) as caught:
        synthetic.splits(tmp_path / "new")
    message = str(caught.value)
    assert 'pip install "speechbrain-vae[synthetic]"' in message
    assert "--data_folder" in message and "\n" not in message
    assert not (tmp_path / "new").exists()


def test_importing_the_corpus_does_not_import_the_library():
    code = (
        "import sys, speechbrain_vae.dataio.synthetic, speechbrain_vae.dataio.espeak;"
        "assert 'espeakng_loader' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speakers": 2}, "speakers must be 3 to"),
        ({"speakers": 500}, "speakers must be 3 to"),
        ({"hours": 0}, "hours must be above 0"),
        ({"seed": 1.5}, "seed must be an integer"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        synthetic.splits(tmp_path / "new", **options)


def test_other_settings_live_beside_each_other(corpus, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(corpus[0], folder)
    before = digests(folder)
    synthetic.splits(folder, SEED, SPEAKERS, 0.005)
    assert before.items() <= digests(folder).items()


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "mine.wav").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        synthetic.splits(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.wav"]


def test_an_error_in_a_worker_ends_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setattr(
        synthetic, "choose_speakers", lambda *_: {"train": ["nobody"], "test": []}
    )
    with pytest.raises(RuntimeError, match="speaker nobody: ValueError: unknown"):
        synthetic.splits(tmp_path / "new", speakers=3, hours=0.01)
