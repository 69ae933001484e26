import pytest
import torch

from speechbrain_vae.analysis.forced_alignment import (
    SILENCE,
    States,
    differences,
    phones_of,
    read_lexicon,
    spread,
)


def test_phones_are_found_in_noise_where_they_were_put():
    states = States("ABC")
    generator = torch.Generator().manual_seed(0)
    for phones in ("A", "BA", "AAB", "CBACBB"):
        spans, path = [], [SILENCE] * 4
        for number, phone in enumerate(phones):
            begin = len(path)
            for state in states.sequence([phone]):
                length = 1 + int(torch.randint(4, (), generator=generator))
                path += [state] * length
            spans.append((begin, len(path)))
            # Silence between some of them.
            path += [SILENCE] * (5 * (number % 2))
        scores = torch.randn(len(path), states.size, generator=generator)
        scores[torch.arange(len(path)), path] += 9
        assert states.align(scores, list(phones)) == spans


def test_equal_neighbours_are_two_phones():
    states = States(["N"], per_phone=3)
    scores = torch.full((12, states.size), -9.0)
    for frame, state in enumerate([0, 1, 1, 2, 3, 3, 1, 2, 2, 3, 0, 0]):
        scores[frame, state] = 0.0
    assert states.align(scores, ["N", "N"]) == [(1, 6), (6, 10)]


def test_every_phone_has_as_many_frames_as_states_or_there_is_no_alignment():
    states = States("AB")
    scores = torch.randn(7, states.size)
    spans = states.align(scores, ["B", "A"])
    assert all(end - begin >= 3 for begin, end in spans)
    assert states.align(scores, ["B", "A", "B"]) is None


def test_a_first_guess_covers_speech_and_leaves_pauses():
    spans = spread([(2, 3), (3, 4), (20, 21)], stride=4, reach=10, frames=100)
    assert spans[0][1] == spans[1][0]
    assert spans[2][0] - spans[1][1] > 40
    states = States("ABC")
    targets = states.targets(["A", "B", "C"], spans, 100)
    assert len(targets) == 100
    assert (targets[spans[1][1] : spans[2][0]] == SILENCE).all()
    assert sorted(set(targets.tolist())) == list(range(10))


def test_words_that_are_not_in_the_lexicon_are_told(caplog):
    entries = {"a": {"words": "YES"}, "b": {"words": "NO WAY"}}
    assert phones_of(entries, {"YES": ["Y", "EH1", "S"]}) == {"a": ["Y", "EH", "S"]}
    assert "1 of 2" in caplog.text and "NO, WAY" in caplog.text


def test_silence_is_no_phone_and_other_phone_sets_stay_as_they_are():
    assert phones_of({"a": {"phones": "sil K AE1 T sp"}}) == {"a": ["K", "AE", "T"]}
    assert phones_of({"a": {"phones": "tS i2 sil"}}) == {"a": ["tS", "i2"]}


def test_errors_say_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="no phone ZH"):
        States(["A"]).sequence(["A", "ZH"])
    (tmp_path / "lexicon.txt").write_text("NO N OW\nWAY\n")
    with pytest.raises(ValueError, match="line 2: WAY has no phones"):
        read_lexicon(tmp_path / "lexicon.txt")


def test_silences_do_not_keep_alignments_from_being_compared():
    ours = [[0.1, 0.2, "SH"], [0.2, 0.3, "T"]]
    timit = [[0, 0.11, "h#"], [0.11, 0.2, "sh"], [0.2, 0.25, "pau"], [0.25, 0.3, "t"]]
    found = differences({"a": ours}, {"a": [*timit, [0.3, 0.4, "h#"]]})
    assert found["utterances"] == 1 and found["mean_ms"] == 15
    assert differences({"a": ours}, {"a": timit[:2]}) == {}
