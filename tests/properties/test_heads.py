"""Downstream models, of random batches."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from speechbrain_vae.lobes.conformer_head import ConformerClassifier
from speechbrain_vae.lobes.heads import (
    FrameClassifier,
    UtteranceClassifier,
    WindowClassifier,
    XvectorClassifier,
)

from .batches import DTYPES, assert_zero, batches, randomised

SIZE, CLASSES = 5, 4
LSTM = {"hidden_size": 6, "num_layers": 1}
CONFORMER = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "kernel_size": 5}
FRAMES = {
    "probe": lambda s: FrameClassifier(SIZE, CLASSES, stride=s),
    "lstm": lambda s: FrameClassifier(SIZE, CLASSES, stride=s, **LSTM),
    "projected": lambda s: FrameClassifier(
        SIZE, CLASSES, stride=s, projection_size=3, **LSTM
    ),
    "conformer": lambda s: ConformerClassifier(SIZE, CLASSES, stride=s, **CONFORMER),
    "window": lambda s: WindowClassifier(SIZE, CLASSES, 6, 1, context=2),
}
STRIDES = st.integers(1, 4)
BAD = st.sampled_from([torch.nan, torch.inf])
every_head = pytest.mark.parametrize("name", FRAMES)


def made(name, stride, dtype=torch.float32):
    torch.manual_seed(0)
    return randomised(FRAMES[name](stride)).eval().to(dtype)


def frames_of(name, count, stride):
    """Output frames of so many input frames."""
    return count if name == "window" else -(-count // stride)


@every_head
@given(batch=batches(SIZE), stride=STRIDES)
def test_every_valid_frame_gets_logits_of_its_utterance_alone(name, batch, stride):
    head = made(name, stride)
    together, lengths = head(batch.x, batch.lengths)
    frames = frames_of(name, batch.x.shape[1], stride)
    assert together.shape == (len(batch.counts), frames, CLASSES)
    assert (lengths is None) == (batch.lengths is None)
    for row, alone in enumerate(batch.alone()):
        single, _ = head(alone)
        count = frames_of(name, batch.counts[row], stride)
        assert single.shape == (1, count, CLASSES)
        if lengths is not None:
            assert round(float(lengths[row]) * frames) == count
        torch.testing.assert_close(
            together[row, :count], single[0], atol=1e-5, rtol=1e-4
        )


@every_head
@given(batch=batches(SIZE), stride=STRIDES)
def test_autocast_gives_finite_logits(name, batch, stride):
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = made(name, stride)(batch.x, batch.lengths)
    assert logits.isfinite().all()


# SpeechBrain's Conformer is one of float32.
@pytest.mark.parametrize("name", [name for name in FRAMES if name != "conformer"])
@given(batch=batches(SIZE, dtypes=DTYPES), stride=STRIDES)
def test_every_number_type_gives_finite_logits(name, batch, stride):
    logits, _ = made(name, stride, batch.x.dtype)(batch.x, batch.lengths)
    assert logits.dtype == batch.x.dtype and logits.isfinite().all()


@every_head
@given(batch=batches(SIZE), bad=BAD)
def test_a_broken_utterance_breaks_no_other(name, batch, bad):
    head = made(name, 2)
    whole, _ = head(batch.x, batch.lengths)
    batch.x[0, 0] = bad
    broken, _ = head(batch.x, batch.lengths)
    assert not broken[0].isfinite().all()
    torch.testing.assert_close(broken[1:], whole[1:], atol=1e-6, rtol=1e-5)


@every_head
@given(batch=batches(SIZE), stride=STRIDES)
def test_padding_gives_no_gradient_and_every_weight_a_finite_one(name, batch, stride):
    head = made(name, stride).train()
    x = batch.x.requires_grad_()
    logits, lengths = head(x, batch.lengths)
    for row, count in zip(logits, batch.counts, strict=True):
        row[: frames_of(name, count, stride)].logsumexp(1).sum().backward(
            retain_graph=True
        )
    assert x.grad.isfinite().all()
    assert_zero(x.grad[~batch.mask])
    for parameter in head.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()


@given(batch=batches(SIZE), frame=st.integers(0, 11))
def test_a_window_ends_where_it_is_said_to(batch, frame):
    head = made("window", 1)
    before, _ = head(batch.x, batch.lengths)
    frame = frame % batch.x.shape[1]
    batch.x[:, frame] += 5
    after, _ = head(batch.x, batch.lengths)
    far = (torch.arange(batch.x.shape[1]) - frame).abs() > 2
    torch.testing.assert_close(after[:, far], before[:, far])


@given(x=batches(SIZE, frames=1), scale=st.floats(-3, 3))
def test_an_utterance_classifier_is_linear(x, scale):
    head = UtteranceClassifier(SIZE, CLASSES)
    bias = head.output.bias
    torch.testing.assert_close(head.embed(x.x), x.x[:, 0])
    expected = scale * (head(x.x, x.lengths) - bias) + bias
    torch.testing.assert_close(head(scale * x.x, x.lengths), expected)


@pytest.fixture(scope="module")
def xvectors():
    """A small x-vector network."""
    torch.manual_seed(0)
    model = XvectorClassifier(SIZE, CLASSES, channels=6, embedding_size=3)
    return randomised(model).eval()


@given(batch=batches(SIZE, frames=30))
def test_x_vectors_of_any_length_are_finite(xvectors, batch):
    x = batch.x * batch.mask.unsqueeze(-1)
    vectors = xvectors.embed(x, batch.lengths)
    assert vectors.shape == (len(batch.counts), 3) and vectors.isfinite().all()
    assert xvectors(x, batch.lengths).shape == (len(batch.counts), CLASSES)


@given(batch=batches(SIZE, frames=30))
def test_x_vectors_do_not_depend_on_company(xvectors, batch):
    # Of one length: SpeechBrain's convolutions see where the padding begins.
    x = batch.x[:, : min(batch.counts)]
    together = xvectors.embed(x)
    alone = torch.cat([xvectors.embed(row[None]) for row in x])
    # SpeechBrain adds a little noise to the statistics, in evaluation too.
    torch.testing.assert_close(together, alone, atol=5e-3, rtol=1e-2)


@given(batch=batches(SIZE, frames=30), bad=BAD)
def test_a_broken_utterance_breaks_no_other_x_vector(xvectors, batch, bad):
    x = batch.x * batch.mask.unsqueeze(-1)
    x[0, 0] = bad
    finite = xvectors(x, batch.lengths).isfinite()
    assert not finite[0].all() and finite[1:].all()


@given(batch=batches(SIZE, frames=30))
def test_training_an_x_vector_gives_finite_gradients(batch):
    torch.manual_seed(0)
    model = XvectorClassifier(SIZE, CLASSES, channels=6, embedding_size=3)
    x = batch.x * batch.mask.unsqueeze(-1)
    model(x, batch.lengths).logsumexp(1).sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
