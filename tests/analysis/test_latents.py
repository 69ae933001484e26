import numpy as np
import pytest
import soundfile
import torch

from speechbrain_vae.analysis.context import AnalysisContext
from speechbrain_vae.analysis.latent_factors import (
    associations,
    correlation_ratio,
    describe_frames,
)
from speechbrain_vae.analysis.latent_figures import LEAST_POINTS, draw_maps
from speechbrain_vae.analysis.latents import (
    STEPS,
    aggregate_deviation,
    kl_per_dimension,
    section,
    traversals,
)
from speechbrain_vae.analysis.report import write_report
from speechbrain_vae.dataio.audio import load_entry

HZ = {"ann": 220.0, "bob": 110.0}


@pytest.fixture
def context(tiny_export, tmp_path):
    """Two speakers, each with a pitch: a vowel between silences, then a fricative."""
    generator = np.random.default_rng(0)
    entries = {}
    for number in range(4):
        speaker = list(HZ)[number % 2]
        time = np.arange(8000) / 16000
        f0 = HZ[speaker] * (1 + number / 40)
        vowel = sum(np.sin(2 * np.pi * k * f0 * time) / k for k in range(1, 9)) / 4
        parts = [np.zeros(3200), vowel, generator.normal(size=3200) / 9, np.zeros(3200)]
        wav = np.concatenate(parts) + generator.normal(size=17600) / 1e4
        soundfile.write(tmp_path / f"{number}.wav", wav / 2, 16000)
        entries[f"{speaker}{number}"] = {
            "wav": str(tmp_path / f"{number}.wav"),
            "spk_id": speaker,
            "gender": "f" if speaker == "ann" else "m",
            "phone_times": [[0.2, 0.7, "AA1"], [0.7, 0.9, "S"]],
        }
    return AnalysisContext(tiny_export, entries)


def test_kl_of_the_section_is_that_of_the_training_loss(context):
    kl = kl_per_dimension(context, list(context.entries))
    # All utterances are of one length, so a batch of them has the same mean.
    feats = torch.stack([context[utt].log_mel for utt in context.entries])
    code, _ = context.autoencoder.encode(feats)
    np.testing.assert_allclose(kl, code.stats["kl_per_dim"].numpy(), rtol=1e-4)


def test_deviation_counts_the_posterior_too(context):
    utts = list(context.entries)
    deviation = aggregate_deviation(context, utts)
    features = torch.cat([context[utt].features for utt in utts])
    assert (deviation > features.std(0, correction=0).numpy()).all()
    torch.manual_seed(0)
    samples = torch.cat(
        [
            context.autoencoder.encode(context[utt].log_mel.unsqueeze(0))[0].latent[0]
            for utt in utts * 40
        ]
    )
    np.testing.assert_allclose(deviation, samples.detach().std(0).numpy(), rtol=0.05)


def test_a_traversal_moves_one_dimension_by_deviations(context):
    deviation = aggregate_deviation(context, list(context.entries))
    utt = next(iter(context.entries))
    moved = traversals(context, utt, [3], deviation, seconds=9.0)[0]
    encoded = context[utt]
    with torch.no_grad():
        latent = encoded.features.clone()
        latent[:, 3] += STEPS[0] * float(deviation[3])
        frames = len(encoded.log_mel)
        by_hand = context.autoencoder.decode(latent.unsqueeze(0), None, frames)[0]
    np.testing.assert_allclose(moved[0], by_hand.numpy(), atol=1e-5)
    middle = STEPS.index(0.0)
    assert np.abs(moved[middle] - moved[0]).max() > 0


def test_pitch_is_measured_where_speech_is_voiced(context):
    frames = describe_frames(context, list(context.entries))
    voiced = np.isfinite(frames.f0)
    assert set(frames.phone[voiced]) == {"AA"}
    assert voiced[frames.phone == "AA"].mean() > 0.7
    for number, utt in enumerate(context.entries):
        own = slice(number * len(voiced) // 4, (number + 1) * len(voiced) // 4)
        expected = HZ[context.entries[utt]["spk_id"]] * (1 + number / 40)
        assert np.nanmedian(frames.f0[own]) == pytest.approx(expected, rel=0.03)
    assert frames.middle.sum() == 8
    assert frames.energy[frames.phone == "AA"].min() > frames.energy[0]


def test_energy_is_that_of_all_frames_that_a_latent_frame_stands_for(context):
    utt = next(iter(context.entries))
    frames = describe_frames(context, [utt])
    wav = load_entry(context.entries[utt])
    decibel = context.features.raw(wav.unsqueeze(0))[0][0].mean(1).numpy()
    pairs = [decibel[start : start + 2].mean() for start in range(0, len(decibel), 2)]
    assert context.stride == 2 and len(decibel) % 2
    np.testing.assert_allclose(frames.energy, pairs, rtol=1e-6)


def test_a_dimension_that_is_a_factor_is_associated_with_it_alone(context):
    frames = describe_frames(context, list(context.entries))
    rng = np.random.default_rng(0)
    frames.features = rng.normal(size=(len(frames.f0), 4))
    frames.features[:, 0] = frames.speaker == "ann"
    frames.features[:, 1] = frames.energy
    frames.features[:, 2] = np.nan_to_num(np.log2(frames.f0))
    found = associations(frames)
    assert found["speaker"][0] == pytest.approx(1)
    assert found["energy, dB"][1] == pytest.approx(1)
    assert found["F0, octaves"][2] == pytest.approx(1)
    assert found["F0 within speaker"][2] < 0.99
    assert all(row[3] < 0.35 for row in found.values())
    assert all(((row >= 0) & (row <= 1)).all() for row in found.values())


def test_correlation_ratio_is_the_share_between_groups():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(90, 3)), rng.integers(4, size=90)
    means = np.stack([x[labels == label].mean(0) for label in labels])
    expected = np.sqrt(means.var(0) / x.var(0))
    np.testing.assert_allclose(correlation_ratio(x, labels), expected)
    assert correlation_ratio(np.ones((3, 1)), np.array([0, 1, 1])) == 0


def test_the_section_of_a_report(context, tmp_path):
    found = section(context)
    names = [name for name, *_ in found.figures]
    kinds = ("kl", "traversals", "association", "maps")
    assert names == [f"latents_{kind}" for kind in kinds]
    assert write_report(tmp_path / "report", "Test", [found]).is_file()


def test_the_map_of_few_frames_is_that_of_pca_alone(context):
    frames = describe_frames(context, list(context.entries))
    assert frames.middle.sum() < LEAST_POINTS
    figure, caption, _ = draw_maps(frames)
    assert all(axis.get_title().startswith("PCA") for axis in figure.axes)
    assert "neighbours" not in caption


def test_no_class_of_a_map_lies_over_all_others(context):
    frames = describe_frames(context, list(context.entries))
    figure, *_ = draw_maps(frames)
    axis = next(axis for axis in figure.axes if "speaker" in axis.get_title())
    painted = [dots for dots in axis.collections if len(dots.get_offsets())]
    colours = [tuple(dots.get_facecolor()[0]) for dots in painted]
    first, last = colours[0], colours[-1]
    assert first in colours[2:] or last in colours[:-2]
    assert sum(len(dots.get_offsets()) for dots in painted) == frames.middle.sum()


def test_a_discrete_export_is_not_said_to_have_a_posterior(sfvq):
    found = section(sfvq)
    assert "nats" not in found.text and "decode what" not in found.text
    assert "no KL divergence" in found.text and "does not show" in found.text
    names = [name for name, *_ in found.figures]
    assert names == ["latents_association", "latents_maps"]


def test_a_corpus_without_labels_has_a_section_too(context):
    for entry in context.entries.values():
        for key in ("spk_id", "gender", "phone_times"):
            del entry[key]
    assert set(section(context).numbers["association"]) == {"F0, octaves", "energy, dB"}
