"""What a section sees of an export."""

import pytest
import torch

from speechbrain_vae.analysis.context import (
    AnalysisContext,
    NotApplicable,
    open_entries,
    pick,
)
from speechbrain_vae.dataio.audio import load_entry
from speechbrain_vae.inference import FeatureEncoder


def test_features_and_codes_are_those_of_the_encoder(sfvq, entries):
    encoder = FeatureEncoder.from_hparams(sfvq.source)
    wav = load_entry(entries["u0"]).unsqueeze(0)
    seen = sfvq["u0"]
    assert torch.equal(seen.features, encoder.encode_batch(wav)[0])
    assert torch.equal(seen.indices, encoder.tokens_batch(wav)[0])


def test_what_was_quantised_gives_the_codes_again(sfvq):
    seen = sfvq["u1"]
    again = sfvq.quantiser(seen.before[None])
    assert torch.equal(again.indices[0], seen.indices)


def test_a_continuous_model_has_no_codebook(tiny_export, entries):
    context = AnalysisContext(tiny_export, entries)
    assert not context.discrete
    assert torch.equal(context["u0"].before, context["u0"].features)
    with pytest.raises(NotApplicable, match="continuous"):
        _ = context.codebook


def test_a_growing_curve_has_the_corners_of_its_stage(sfvq):
    assert sfvq.codebook.shape == (4, 6)


def test_a_phone_is_that_at_the_centre_of_the_frame(sfvq, entries):
    labels = sfvq.phones("u0")
    for centre, label in zip(sfvq.times(len(labels)).tolist(), labels, strict=True):
        there = [
            phone.rstrip("1")
            for start, end, phone in entries["u0"]["phone_times"]
            if start <= centre + 1e-6 and centre < end - 1e-6
        ]
        assert label == (there[0] if there else "SIL")


def test_without_phone_times_an_alignment_is_asked_for(tiny_export, entries):
    del entries["u0"]["phone_times"]
    context = AnalysisContext(tiny_export, {"u0": entries["u0"]})
    with pytest.raises(NotApplicable, match="--alignment"):
        _ = context.phone_times


def test_an_alignment_of_another_corpus_is_refused(tmp_path, entries):
    ctm = tmp_path / "phones.ctm"
    ctm.write_text("elsewhere 1 0.0 0.1 K\n")
    with pytest.raises(ValueError, match="its first utterance is elsewhere"):
        open_entries("folder", tmp_path, tmp_path / "save", alignment=ctm)


def test_what_an_alignment_lacks_is_counted_and_its_words_are_kept(
    tmp_path, entries, caplog
):
    (tmp_path / "tg").mkdir()
    rows = [("words", "hi"), ("phones", "AY1")]
    text = "".join(f'"IntervalTier" "{t}" 0 1 1 0.2 0.9 "{w}" ' for t, w in rows)
    (tmp_path / "tg/u0.TextGrid").write_text(text)
    where = tmp_path, tmp_path / "save", tmp_path / "tg"
    found = open_entries("folder", *where, split="train")
    assert found["u0"]["phone_times"] == [[0.2, 0.9, "AY1"]]
    assert found["u0"]["word_times"] == [[0.2, 0.9, "HI"]]
    assert "no phone times for 3 of the 4 utterances" in caplog.text


def test_an_alignment_that_outlasts_the_recording_is_refused(tmp_path, entries):
    ctm = tmp_path / "phones.ctm"
    ctm.write_text("".join(f"u{i} 1 99.0 0.1 K\n" for i in range(6)))
    with pytest.raises(ValueError, match="until 99.1 s, but the recording lasts 1 s"):
        open_entries("folder", tmp_path, tmp_path / "save", alignment=ctm)


def test_a_choice_of_less_than_nothing_is_refused():
    with pytest.raises(ValueError, match="cannot be negative; got -1"):
        pick({"a": {}, "b": {}}, -1)


def test_a_choice_takes_speakers_alike_and_is_the_same_again():
    all_of_them = {f"{name}{i}": {"spk_id": name} for name in "abc" for i in range(9)}
    chosen = pick(all_of_them, 6)
    assert sorted(entry["spk_id"] for entry in chosen.values()) == list("aabbcc")
    assert chosen == pick(dict(reversed(all_of_them.items())), 6)
