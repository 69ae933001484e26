"""The export of PCA that benchmarks/representation.py compares with."""

import torch

from benchmarks.pca_export import write_pca_export
from speechbrain_vae.export import read_export
from speechbrain_vae.nnet.ppca import PPCA


def test_its_features_are_the_components_of_windows(tmp_path):
    torch.manual_seed(0)
    utterances = [torch.randn(60, 80) @ torch.randn(80, 80) for _ in range(3)]
    model = read_export(
        write_pca_export(tmp_path / "pca", utterances, 5, 3)
    ).autoencoder
    x = utterances[0]
    with torch.no_grad():
        found = model.encode(x.unsqueeze(0))[0].features[0]
        mean = model.decode(found.unsqueeze(0), None, len(x))[0]
    vectors = PPCA(3, utterances).vectors[:, :5].float()
    padded = torch.nn.functional.pad(x, (0, 0, 1, 1))
    windows = padded.unfold(0, 3, 1).transpose(1, 2).flatten(1)
    torch.testing.assert_close(found, windows @ vectors, rtol=1e-4, atol=1e-3)
    middle = vectors.view(3, 80, 5)[1]
    torch.testing.assert_close(mean, found @ middle.t(), rtol=1e-4, atol=1e-3)
