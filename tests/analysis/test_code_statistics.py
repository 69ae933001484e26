"""Information of codes and phones, by construction and as others compute it."""

import numpy as np
import pytest
from scipy.stats import wasserstein_distance
from sklearn.metrics import normalized_mutual_info_score

from speechbrain_vae.analysis.code_statistics import (
    agreement,
    code_counts,
    distances_along,
    shuffled_nmi,
    similar_pairs_test,
)


def test_nmi_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    phones = rng.choice(list("abcde"), 2000)
    codes = (phones == "a") * 3 + rng.integers(0, 5, 2000)
    result = agreement(code_counts(phones, codes, 16)[1])
    assert result["nmi"] == pytest.approx(normalized_mutual_info_score(phones, codes))
    assert result["frames"] == 2000 and result["used_codes"] == len(set(codes))


def test_codes_that_are_the_phones_say_all_of_them():
    result = agreement(7 * np.eye(5, dtype=int))
    for key in ("phone_purity", "cluster_purity", "nmi", "pnmi"):
        assert result[key] == pytest.approx(1)
    assert result["conditional_entropy_bits"] == pytest.approx(0)


def test_codes_that_ignore_the_phones_say_nothing():
    result = agreement(np.outer([1, 2, 3], [4, 4, 2]))
    assert result["nmi"] == pytest.approx(0)
    assert result["conditional_entropy_bits"] == pytest.approx(
        result["phone_entropy_bits"]
    )


def test_few_frames_make_any_nmi_large_and_shuffling_says_how_large():
    rng = np.random.default_rng(0)
    found = []
    for frames in (500, 5000):
        phones, codes = rng.choice(list("abcdef"), frames), rng.integers(0, 64, frames)
        counts = code_counts(phones, codes, 64)[1]
        found.append(shuffled_nmi(counts))
        assert agreement(counts)["nmi"] == pytest.approx(found[-1], rel=0.2)
    assert found[0] > 5 * found[1]


def test_distance_along_the_codes_is_the_earth_movers_distance():
    counts = np.random.default_rng(0).integers(0, 9, (3, 10))
    place = np.arange(10) / 10
    expected = wasserstein_distance(place, place, counts[0], counts[2])
    assert distances_along(counts)[0, 2] == pytest.approx(expected)


def test_the_permutation_test_is_level_for_names_without_meaning():
    names = ["F", "V", "S", "Z", "SH", "ZH", *(f"P{i}" for i in range(20))]
    p = []
    for seed in range(60):
        place = np.random.default_rng(seed).random(len(names))
        distances = np.abs(place[:, None] - place)
        result = similar_pairs_test(names, distances, permutations=500, seed=seed)
        p.append(result["p"])
    assert 0.35 < np.mean(p) < 0.65


def test_phones_that_are_missing_leave_their_pair_out():
    names = ["F", "V", "S", "AA"]
    result = similar_pairs_test(names, np.ones((4, 4)), permutations=50)
    assert list(result["pairs"]) == ["f-v"]
    assert result["left_out"] == ["th-dh", "s-z", "sh-zh"]
    assert similar_pairs_test(names, np.ones((4, 4)), among={"S", "AA"}) is None
