"""PCA of windows of log-Mel frames as an export: the linear row of every table."""

from pathlib import Path

import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_vae.export import write_export
from speechbrain_vae.nnet.ppca import PPCA

YAML = """
features: !new:speechbrain_vae.lobes.features.LogMel
autoencoder: !new:speechbrain_vae.lobes.autoencoder.Autoencoder
    encoder: !new:speechbrain_vae.lobes.encoders.ConvEncoder
        channels: {dims}
        blocks: 0
        stride: 1
        stem_kernel_size: {width}
    bottleneck: !new:speechbrain_vae.lobes.bottlenecks.DeterministicBottleneck
        input_size: {dims}
    decoder: !new:speechbrain_vae.lobes.decoders.RecurrentDecoder
        input_size: {dims}
        num_layers: 0
    likelihood: !new:speechbrain_vae.nnet.likelihoods.GaussianLikelihood
        size: 80
"""


def write_pca_export(folder, utterances, dims=64, width=11):
    """Fit PCA to windows around frames and write it as an export.

    Arguments
    ---------
    folder : str or Path
        Where to.
    utterances : iterable of torch.Tensor
        Normalised log-Mel frames of the training set, each [T, 80].
    dims : int
        Components.
    width : int
        Odd number of frames of a window.

    Returns
    -------
    Path
        The export.
    """
    text = YAML.format(dims=dims, width=width)
    hparams = load_hyperpyyaml(text)
    model = hparams["autoencoder"]
    components = PPCA(width, utterances).vectors[:, :dims].float()
    with torch.no_grad():
        # [W * F, D] to the kernel of a convolution, [D, W, F].
        kernel = components.view(width, -1, dims).permute(2, 0, 1)
        model.encoder.stem.weight.copy_(kernel)
        model.encoder.stem.bias.zero_()
        model.decoder.output.weight.copy_(components.view(width, -1, dims)[width // 2])
        model.decoder.output.bias.zero_()
    return write_export(Path(folder), text, hparams["features"], model)
