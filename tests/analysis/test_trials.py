import numpy as np
import pytest
import torch

from speechbrain_vae.analysis.trials import (
    error_rates,
    make_trials,
    read_trials,
    verification_errors,
)


def corpus(speakers, utterances):
    return {f"s{s}u{u}": f"s{s}" for s in range(speakers) for u in range(utterances)}


def test_all_pairs_come_once_where_they_are_few():
    trials = make_trials(corpus(4, 5))
    pairs = {frozenset(pair) for _, *pair in trials}
    assert len(trials) == len(pairs) == 20 * 19 // 2
    assert all(len(pair) == 2 for pair in pairs)
    assert sum(same for same, *_ in trials) == 4 * 10


def test_the_draw_depends_on_the_seed_and_not_on_the_order():
    speakers = corpus(10, 10)
    drawn = make_trials(speakers, limit=500, seed=1)
    assert len(drawn) == len(set(drawn)) == 500
    backwards = dict(reversed(speakers.items()))
    assert make_trials(backwards, limit=500, seed=1) == drawn
    assert make_trials(speakers, limit=500, seed=2) != drawn


def test_many_trials_have_the_errors_that_counting_gives():
    generator = torch.Generator().manual_seed(0)
    speakers = corpus(40, 20)
    centres = torch.randn(40, 8, generator=generator)
    embeddings = {
        utt: centres[int(spk[1:])] + 0.8 * torch.randn(8, generator=generator)
        for utt, spk in speakers.items()
    }
    trials = make_trials(speakers, limit=10000)
    found = verification_errors(embeddings, trials)

    same = np.array([same for same, *_ in trials])
    scores = np.array(
        [
            float(torch.cosine_similarity(embeddings[a], embeddings[b], dim=0))
            for _, a, b in trials
        ]
    )
    labels = same[np.argsort(scores)]
    miss = np.cumsum([0, *labels]) / labels.sum()
    accept = 1 - np.cumsum([0, *~labels]) / (~labels).sum()
    crossing = np.argmin(np.abs(miss - accept))
    cost = np.min(0.01 * miss + 0.99 * accept) / 0.01
    assert found["EER"] == pytest.approx(
        50 * (miss[crossing] + accept[crossing]), abs=0.02
    )
    assert found["minDCF"] == pytest.approx(cost, abs=1e-3)


def test_equal_scores_are_accepted_together():
    scores = torch.tensor([0.5, 0.5, 0.1, 0.9])
    same = torch.tensor([True, False, False, True])
    missed, accepted = error_rates(scores, same)
    assert missed.tolist() == [0, 0, 0.5, 1] and accepted.tolist() == [1, 0.5, 0, 0]


def test_random_embeddings_accept_half_of_the_strangers():
    speakers = corpus(20, 10)
    generator = torch.Generator().manual_seed(0)
    embeddings = {utt: torch.randn(16, generator=generator) for utt in speakers}
    errors = verification_errors(embeddings, make_trials(speakers))
    assert 45 < errors["EER"] < 55
    assert 0.9 < errors["minDCF"] <= 1


@pytest.mark.parametrize("speakers, utterances", [(1, 5), (5, 1)])
def test_pairs_of_one_kind_are_refused(speakers, utterances):
    with pytest.raises(ValueError, match="of one kind only"):
        make_trials(corpus(speakers, utterances))


@pytest.mark.parametrize(
    "line, message",
    [
        ("1 ann/1.wav", "line 2: expected a 1 or 0"),
        ("01 ann/1.wav ann/2.wav", "line 2: expected a 1 or 0"),
        ("0 ann/1.wav eve/1.wav", "line 2: eve-1 is no utterance"),
        ("1 ann/2.wav ann/1.wav", "no trials of the same and of different"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path, line, message):
    path = tmp_path / "trials.txt"
    path.write_text(f"1 ann/1.wav ann/2.wav\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_trials(path, {"ann-1", "ann-2"})
