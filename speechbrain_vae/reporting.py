"""What a pretraining run leaves behind: numbers and a figure."""

import json
from pathlib import Path

import torch

from speechbrain_vae.nnet.mmd import mmd
from speechbrain_vae.nnet.ppca import PPCA

PPCA_WINDOW = 5
"""Frames of the windows of the PCA baselines."""

PPCA_DIMS_PER_SECOND = 1600
"""Latent dimensions a second of the probabilistic PCA that the ELBO is held against."""


def linear_baselines(
    train,
    test,
    frame_shift: float,
    latent_dims_per_second: float,
    active: float | None = None,
) -> dict:
    """Probabilistic PCA and PCA of the same training and test utterances.

    Arguments
    ---------
    train, test : iterable of torch.Tensor
        Normalised features, each [T, F]; iterated more than once.
    frame_shift : float
        In seconds.
    latent_dims_per_second : float
        Size of the model's latent.
    active : float, optional
        Active latent dimensions a second; the size of the PCA whose error is given.

    Returns
    -------
    dict
        ``ppca_nats_per_frame`` at :data:`PPCA_DIMS_PER_SECOND`,
        ``ppca_same_size_nats_per_frame`` at the size of the model, and ``pca_mse``
        at the size of the active dimensions.
    """
    ppca = PPCA(PPCA_WINDOW, train)
    seconds = PPCA_WINDOW * frame_shift

    def dims(per_second):
        return max(1, min(round(per_second * seconds), ppca.values.numel() - 1))

    size = dims(latent_dims_per_second if active is None else active)
    return {
        "ppca_nats_per_frame": ppca.log_likelihood(test, dims(PPCA_DIMS_PER_SECOND)),
        "ppca_dims_per_second": PPCA_DIMS_PER_SECOND,
        "ppca_same_size_nats_per_frame": ppca.log_likelihood(
            test, dims(latent_dims_per_second)
        ),
        "pca_mse": ppca.mse(test, size),
        "pca_dims_per_second": size / seconds,
    }


@torch.no_grad()
def aggregate_posterior(autoencoder, utterances, limit: int = 2000) -> dict:
    """How far the samples of all posteriors together are from the prior of a VAE.

    Arguments
    ---------
    autoencoder : speechbrain_vae.lobes.autoencoder.Autoencoder
        With a bottleneck that can sample from a prior.
    utterances : sequence of torch.Tensor
        Normalised features, each [T, F].
    limit : int
        Latent frames to compare, drawn from as many utterances at most.

    Returns
    -------
    dict
        ``aggregate_mmd``, the squared maximum mean discrepancy (MMD), and
        ``aggregate_mmd_of_prior``, that of two samples of the prior: its noise.
    """
    device = next(autoencoder.parameters()).device
    draw = torch.Generator().manual_seed(0)
    found = []
    for place in torch.randperm(len(utterances), generator=draw)[:limit].tolist():
        feats = utterances[place].unsqueeze(0).to(device)
        found.append(autoencoder.encode(feats)[0].latent[0].cpu())
    latents = torch.cat(found)
    chosen = torch.randperm(len(latents), generator=draw)[:limit]
    latents = latents[chosen].to(device)
    prior = [autoencoder.bottleneck.sample(1, len(latents))[0] for _ in range(2)]
    return {
        "aggregate_mmd": mmd(latents, prior[0]),
        "aggregate_mmd_of_prior": mmd(prior[1], prior[0]),
    }


def write_report(folder: str | Path, report: dict) -> str:
    """Write ``report.json`` and return the same numbers as lines of text.

    Arguments
    ---------
    folder : str or Path
        The experiment folder.
    report : dict
        Flat, from dotted names to numbers and strings.

    Returns
    -------
    str
    """
    nested: dict = {}
    for name, value in report.items():
        *parents, leaf = name.split(".")
        place = nested
        for parent in parents:
            place = place.setdefault(parent, {})
        place[leaf] = value
    path = Path(folder) / "report.json"
    path.write_text(json.dumps(nested, indent=2) + "\n")
    width = max(map(len, report))
    return "\n".join(f"{name:<{width}}  {shown(v)}" for name, v in report.items())


def shown(value):
    """A value of a report as text.

    Example
    -------
    >>> shown(0.123456), shown([])
    ('0.1235', 'none')
    """
    if isinstance(value, list):
        return "; ".join(value) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@torch.no_grad()
def draw(
    path: str | Path,
    autoencoder,
    feats: torch.Tensor,
    frame_shift: float,
    kl_per_dim: torch.Tensor | None = None,
    title: str = "",
):
    """Draw an utterance, its reconstruction, its features and the KL of each.

    Arguments
    ---------
    path : str or Path
        Image file to write.
    autoencoder : speechbrain_vae.lobes.autoencoder.Autoencoder
        A trained model in evaluation mode.
    feats : torch.Tensor
        Normalised features of one utterance, shape [T, F].
    frame_shift : float
        Of ``feats``, in seconds.
    kl_per_dim : torch.Tensor, optional
        KL divergence of each dimension, in nats per latent frame, shape [D].
    title : str
        Name of the utterance.
    """
    from matplotlib.figure import Figure

    feats = feats.unsqueeze(0)
    code, _ = autoencoder.encode(feats)
    mean = autoencoder.decode(code.features, None, feats.shape[1])
    seconds = feats.shape[1] * frame_shift
    order = torch.arange(code.features.shape[-1])
    if kl_per_dim is not None:
        order = torch.argsort(kl_per_dim.cpu(), descending=True)

    figure = Figure(figsize=(9, 8), layout="constrained")
    rows = figure.subplots(4, 1, height_ratios=[1, 1, 1, 0.8])
    limits = {"vmin": -2.5, "vmax": 2.5, "cmap": "magma"}
    labels: dict = {"label": "standard\ndeviations"}
    for axis, frames, name in (
        (rows[0], feats, f"Input {title}"),
        (rows[1], mean, "Reconstruction from the features"),
    ):
        image = _picture(axis, frames[0], seconds, limits)
        axis.set(title=name, ylabel="Mel band")
        figure.colorbar(image, ax=axis, **labels)
    latent = code.features[0][:, order.to(code.features.device)]
    bound = float(latent.abs().quantile(0.99).clamp(min=1e-3))
    image = _picture(
        rows[2], latent, seconds, {"vmin": -bound, "vmax": bound, "cmap": "RdGy"}
    )
    rows[2].set(
        title="Features (posterior mean), dimensions by decreasing KL"
        if kl_per_dim is not None
        else "Features",
        xlabel="Time (s)",
        ylabel="Dimension",
    )
    figure.colorbar(image, ax=rows[2])
    if kl_per_dim is None:
        rows[3].set_axis_off()
    else:
        values = kl_per_dim.cpu()[order].numpy()
        rows[3].bar(range(len(values)), values, color="0.35")
        rows[3].set(
            title=f"KL divergence from the prior, {values.sum():.1f} nats in all",
            xlabel="Dimension, by decreasing KL",
            ylabel="nats per\nlatent frame",
            xlim=(-0.7, len(values) - 0.3),
        )
    figure.savefig(path, dpi=120)


def _picture(axis, frames, seconds, options):
    return axis.imshow(
        frames.float().cpu().T.numpy(),
        aspect="auto",
        origin="lower",
        interpolation="nearest",
        extent=(0, seconds, -0.5, frames.shape[1] - 0.5),
        **options,
    )
