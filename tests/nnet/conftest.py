"""Fixtures of layers and of what they are computed with."""

import pytest
import torch


@pytest.fixture
def two_threads():
    """PyTorch computes with two threads, so that two at once have one each."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)
