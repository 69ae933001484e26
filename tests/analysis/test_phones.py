"""The phone tables cover ARPAbet and TIMIT, once each."""

import pytest

from speechbrain_vae.analysis.phones import (
    ARPABET,
    MANNERS,
    PHONE_GROUPS,
    fold_timit,
    manner,
    phone_group,
)

_TIMIT = """
iy ih eh ey ae aa aw ay ah ao oy ow uh uw ux er ax ix axr ax-h jh ch b d g p t k dx q
s sh z zh f th v dh m n ng em en eng nx l r w y hh hv el bcl dcl gcl pcl tcl kcl h# pau
epi
"""
TIMIT = _TIMIT.split()


def test_timit_folds_into_39_classes():
    assert len(TIMIT) == 61
    assert len({fold_timit(phone) for phone in TIMIT} - {None}) == 39
    assert [phone for phone in TIMIT if fold_timit(phone) is None] == ["q"]


def test_arpabet_has_39_phones():
    assert len(set(ARPABET)) == 39


@pytest.mark.parametrize("phone", [*TIMIT, *ARPABET])
def test_every_phone_has_a_group_and_a_manner(phone):
    assert phone_group(phone) in PHONE_GROUPS
    assert manner(phone) in MANNERS


def test_folding_keeps_the_group():
    moved = {
        phone
        for phone in TIMIT
        if fold_timit(phone) and phone_group(fold_timit(phone)) != phone_group(phone)
    }
    assert moved == set()


def test_an_unknown_phone_is_named():
    with pytest.raises(ValueError, match="phone 'ʃ' is in neither"):
        phone_group("ʃ")
