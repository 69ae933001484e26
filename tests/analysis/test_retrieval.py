import itertools

import numpy as np
import pytest
import soundfile
import torch

from speechbrain_vae.analysis import word_search
from speechbrain_vae.analysis.context import AnalysisContext, NotApplicable
from speechbrain_vae.analysis.report import write_report
from speechbrain_vae.analysis.retrieval import (
    _by_chance,
    average_precision,
    draw,
    retrieval_scores,
    section,
)
from speechbrain_vae.analysis.word_search import (
    NORMALISATIONS,
    SpokenWord,
    WordSearch,
    sounds_like,
    spoken_words,
)

SHIFT = 0.02
PATTERNS = {"YES": [0, 1, 2, 3], "NO": [4, 5, 4, 5], "WELL": [6, 1, 7, 3]}


def corpus(noise=0.2, speakers="abcdef"):
    """Every speaker says two words, each some frames of its own, between noise."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.eye(8)
    features, entries = {}, {}
    for speaker, (number, pair) in itertools.product(
        speakers, enumerate(itertools.combinations(PATTERNS, 2))
    ):
        frames, times = [torch.zeros(5, 8)], []
        for word in pair:
            stretch = 1 + int(torch.randint(2, (), generator=generator))
            said = directions[PATTERNS[word]].repeat_interleave(stretch, 0)
            start = sum(map(len, frames))
            times.append([start * SHIFT, (start + len(said) - 1) * SHIFT, word])
            frames += [said, torch.zeros(4, 8)]
        frames = torch.cat(frames)
        utt = f"{speaker}{number}"
        features[utt] = frames + noise * torch.randn(frames.shape, generator=generator)
        entries[utt] = {"spk_id": speaker, "word_times": times}
    return features, entries


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_words_that_sound_alike_are_found(normalisation):
    features, entries = corpus()
    words = spoken_words(entries)
    speakers = {utt: entry["spk_id"] for utt, entry in entries.items()}
    search = WordSearch(features, SHIFT, normalisation=normalisation, speakers=speakers)
    scores = retrieval_scores(search, words, entries)
    assert scores["MAP"] > 90 and scores["P@N"] > 80
    assert scores["queries"] == len(words) == 36
    assert set(scores["words"]) == set(PATTERNS)


def test_voices_become_alike():
    torch.manual_seed(0)
    features, entries = corpus(noise=0.3)
    speakers = {utt: entry["spk_id"] for utt, entry in entries.items()}
    # A voice stretches and turns what it says by a map of its own.
    voices = {s: torch.eye(8) + 0.5 * torch.randn(8, 8) for s in set(speakers.values())}
    voices = {s: voice @ voice.T for s, voice in voices.items()}
    features = {utt: f @ voices[speakers[utt]] for utt, f in features.items()}
    words = spoken_words(entries)
    whitened, speaker = (
        retrieval_scores(
            WordSearch(features, SHIFT, 0.0, name, 0.01, speakers), words, entries
        )
        for name in ("whitened", "speaker")
    )
    assert speaker["MAP"] > whitened["MAP"] + 5


def test_whitened_frames_have_the_variance_of_all_directions():
    torch.manual_seed(0)
    features = {utt: torch.randn(400, 3) @ torch.randn(3, 3) for utt in "abcd"}
    speakers = dict(zip("abcd", "xxyy", strict=True))
    groups = [speakers[utt] for utt in sorted(features)]
    frames = word_search._whitened([features[u] for u in "abcd"], groups, 0.0)
    for pair in (frames[:2], frames[2:]):
        torch.testing.assert_close(
            torch.cat(pair).T.cov(correction=0), torch.eye(3), atol=1e-3, rtol=0
        )


def test_noise_is_found_as_chance_has_it():
    features, entries = corpus()
    generator = torch.Generator().manual_seed(1)
    runs = []
    for _ in range(20):
        noise = {
            u: torch.randn(f.shape, generator=generator) for u, f in features.items()
        }
        runs.append(
            retrieval_scores(WordSearch(noise, SHIFT), spoken_words(entries), entries)
        )
    for score, chance in (("MAP", "chance"), ("P@N", "chance_P@N")):
        mean = np.mean([run[score] for run in runs])
        assert mean == pytest.approx(runs[0][chance], abs=3)


def test_chance_is_the_mean_over_all_orders():
    orders = list(itertools.permutations([True, True, False, False, False]))
    mean = np.mean([average_precision(order) for order in orders])
    assert _by_chance(orders[0]) == pytest.approx(mean)


def test_the_utterance_of_the_query_and_its_speaker_are_not_ranked():
    features, entries = corpus()
    # Nobody but the speaker herself says this word, in two utterances.
    for utt in ("a0", "a1"):
        entries[utt]["word_times"].append([0.1, 0.18, "MINE"])
    search = WordSearch(features, SHIFT)
    words = [w for w in spoken_words(entries, least=2) if w.word == "MINE"]
    with pytest.raises(ValueError, match="said by anybody else"):
        retrieval_scores(search, words, entries)
    assert retrieval_scores(search, words, entries, same_speaker=True)["queries"] == 2
    found = search.find("a0", 0.1, 0.18, number=99, without={"a2"})
    assert {hit.utt for hit in found} == set(features) - {"a0", "a2"}


def test_a_hit_says_when_the_word_was_said():
    features, entries = corpus(noise=0.0)
    search = WordSearch(features, SHIFT)
    for utt, entry in entries.items():
        for start, end, word in entry["word_times"]:
            for hit in search.find(utt, start, end, number=3):
                times = entries[hit.utt]["word_times"]
                assert word in [w for *_, w in times]
                begin, last = next((s, e) for s, e, w in times if w == word)
                assert begin - SHIFT < hit.start + SHIFT / 2 <= hit.end - SHIFT / 2
                assert hit.end - SHIFT / 2 < last + SHIFT


def test_rare_words_are_no_queries():
    _, entries = corpus(speakers="ab")
    with pytest.raises(ValueError, match="no word was said 5 times"):
        spoken_words(entries)
    with pytest.raises(ValueError, match="word_times"):
        spoken_words({"a": {"words": "YES YES"}}, least=2)


def test_errors_say_what_is_wrong():
    features, _ = corpus(speakers="a")
    with pytest.raises(ValueError, match="normalisation must be one of"):
        WordSearch(features, SHIFT, normalisation="voice")
    with pytest.raises(ValueError, match="who says 'a1'"):
        WordSearch(features, SHIFT, normalisation="speaker", speakers={"a0": "a"})
    with pytest.raises(ValueError, match="shrinkage must not be negative"):
        WordSearch(features, SHIFT, shrinkage=-1)
    search = WordSearch(features, SHIFT)
    with pytest.raises(ValueError, match="'z' is not among those"):
        search.distances("z", 0.0, 0.1)
    with pytest.raises(ValueError, match="is frame_shift right"):
        search.distances("a0", 9.0, 9.1)


def test_utterances_with_the_same_sounds_sound_alike():
    torch.manual_seed(0)
    features = {}
    for name, shift in (("a", 0), ("b", 0), ("c", 3), ("d", 3)):
        features[name] = torch.randn(200, 6) * 0.5
        features[name][:, shift : shift + 3] += 1
    utterances, similarity = sounds_like(features)
    similarity.fill_diagonal_(-1)
    nearest = [utterances[i] for i in similarity.argmax(1)]
    assert nearest == ["b", "a", "d", "c"]


def test_the_section_of_a_report(tiny_export, tmp_path):
    generator = np.random.default_rng(0)
    tones = {"LOW": 200, "HIGH": 900}
    entries = {}
    for speaker, number in itertools.product("abc", range(2)):
        parts, times, start = [], [], 0.0
        for word in tones:
            noise = generator.normal(size=3200) / 50
            parts += [noise, np.sin(2 * np.pi * tones[word] * np.arange(4800) / 16000)]
            times.append([start + 0.2, start + 0.5, word])
            start += 0.5
        utt = f"{speaker}{number}"
        soundfile.write(tmp_path / f"{utt}.wav", np.concatenate(parts) / 3, 16000)
        entries[utt] = {
            "wav": str(tmp_path / f"{utt}.wav"),
            "spk_id": speaker,
            "gender": "f" if speaker == "a" else "m",
            "word_times": times,
        }
    found = section(AnalysisContext(tiny_export, entries))
    assert found.numbers["MFCC"]["queries"] == 10
    assert {"MFCC", "FBANK"} < set(found.numbers)
    assert write_report(tmp_path / "report", "Test", [found]).is_file()
    silent = {utt: {**entry, "word_times": []} for utt, entry in entries.items()}
    with pytest.raises(NotApplicable, match="word_times"):
        section(AnalysisContext(tiny_export, silent))


def test_labels_of_words_do_not_lie_on_each_other():
    ends = {"ONE": 0.2, "TWO": 0.2, "SEVEN": 0.6}
    words = [SpokenWord("u", 0.0, end, word) for word, end in ends.items()]
    scores = {"MAP": 80.0, "words": {"ONE": 80.0, "TWO": 79.0, "SEVEN": 80.0}}
    figure = draw({"model": scores, "MFCC": scores}, words)
    assert [text.get_text() for text in figure.axes[0].texts] == ["one", "seven"]
