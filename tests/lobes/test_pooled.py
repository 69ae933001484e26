import pytest
import torch

from speechbrain_vae.lobes.adapter import FeatureAdapter
from speechbrain_vae.lobes.front_ends import FrontEnd
from speechbrain_vae.lobes.pooled import PooledFrontEnd


@pytest.mark.parametrize("segments", [1, 3])
def test_padding_does_not_change_the_vector(segments):
    front_end = PooledFrontEnd(FrontEnd("fbank"), segments)
    feats = torch.randn(1, 20, 80)
    padded = torch.nn.functional.pad(feats, (0, 0, 0, 12), value=7.0)
    alone = front_end.pool(feats)
    assert torch.allclose(front_end.pool(padded, torch.tensor([20 / 32])), alone)


def test_a_segment_is_pooled_by_itself():
    feats = torch.randn(1, 10, 80)
    vector = PooledFrontEnd(FrontEnd("fbank"), 3).pool(feats).unflatten(-1, (3, 160))
    parts = feats[0, :3], feats[0, 3:6], feats[0, 6:]
    for part, found in zip(parts, vector[0, 0], strict=True):
        expected = torch.cat([part.mean(0), part.std(0, correction=0)])
        assert torch.allclose(found, expected, atol=1e-5)


def test_fewer_frames_than_segments_leave_none_empty():
    vector = PooledFrontEnd(FrontEnd("fbank"), 3).pool(torch.ones(1, 2, 80))
    assert torch.allclose(vector.unflatten(-1, (3, 2, 80))[..., 0, :], torch.ones(()))


def test_vectors_of_the_cache_are_those_of_the_waveform(tmp_path):
    import soundfile

    wav = 0.1 * torch.randn(16000)
    soundfile.write(tmp_path / "a.wav", wav.numpy(), 16000, subtype="FLOAT")
    entries = {"a": {"wav": str(tmp_path / "a.wav"), "duration": 1.0}}
    front_end = PooledFrontEnd(FrontEnd("mfcc_cmvn"), 2)
    opened = front_end.open(entries, tmp_path / "cache")
    vectors, counts = front_end.raw(wav.unsqueeze(0))
    assert counts.tolist() == [1]
    assert torch.allclose(opened["a"], vectors[0], atol=1e-4)


def test_layers_keep_their_statistics_together(tiny_export):
    frames = FrontEnd(tiny_export, layer="layers")
    front_end = PooledFrontEnd(frames)
    adapter = FeatureAdapter(front_end)
    assert adapter.output_size == 2 * frames.size // 2
    feats, _ = frames(torch.randn(1, 16000))
    first, second = front_end.pool(feats)[0, 0].chunk(2)
    half = frames.size // 2
    assert torch.allclose(first[:half], feats[0, :, :half].mean(0), atol=1e-5)
    assert torch.allclose(second[:half], feats[0, :, half:].mean(0), atol=1e-5)


def test_tokens_become_shares_of_the_frames():
    class Tokens(torch.nn.Module):
        frozen, layers, size, codebook_sizes = True, 1, 2, [3, 2]

    codes = torch.tensor([[[0, 1], [2, 1], [2, 0], [2, 1], [-1, -1]]])
    vector = PooledFrontEnd(Tokens()).pool(codes, torch.tensor([0.8]))
    assert vector[0, 0].tolist() == [0.25, 0.0, 0.75, 0.25, 0.75]


def test_a_front_end_that_learns_gets_a_gradient(tiny_export):
    front_end = PooledFrontEnd(FrontEnd(tiny_export, freeze=False))
    front_end(torch.randn(2, 16000))[0].square().sum().backward()
    grads = [p.grad for p in front_end.parameters() if p.grad is not None]
    assert grads and all(torch.isfinite(grad).all() for grad in grads)


@pytest.mark.parametrize("segments", [0, 1.5, "all"])
def test_a_wrong_number_of_segments_is_refused(segments):
    with pytest.raises(ValueError, match="segments is a whole number"):
        PooledFrontEnd(FrontEnd("fbank"), segments)
