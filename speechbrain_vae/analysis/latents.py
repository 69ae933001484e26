"""Section: what the dimensions of the latent space are for."""

import numpy as np
import torch

from .context import pick
from .latent_factors import associations, describe_frames
from .latent_figures import (
    STEPS,
    draw_associations,
    draw_kl,
    draw_maps,
    draw_traversals,
)
from .report import Section, Table

UTTERANCES = 200
"""As many as the correlations and the maps look at."""

TRAVERSED = 5
"""Dimensions whose traversals are drawn."""


def section(context) -> Section:
    """KL divergence, traversals, correlations and maps of an export.

    Arguments
    ---------
    context : speechbrain_vae.analysis.context.AnalysisContext

    Returns
    -------
    Section
    """
    utterances = list(pick(context.entries, UTTERANCES))
    kl = kl_per_dimension(context, utterances)
    spread = aggregate_deviation(context, utterances)
    order = np.argsort(-(spread if kl is None else kl), kind="stable")
    rank = "KL divergence" if kl is not None else "variance"
    figures, numbers = [], {"deviation": spread, "order": order}
    if kl is not None:
        numbers["kl_nats"] = kl
        figures.append(("latents_kl", draw_kl(kl), "KL divergence of each dimension."))
    text = [_TEXT_KL] if kl is not None else []
    if context.discrete:
        text.append(_TEXT_DISCRETE)
    else:
        text.append(_TEXT_TRAVERSALS)
        utt = utterances[len(utterances) // 2]
        moved = traversals(context, utt, order[:TRAVERSED], spread)
        figures.append(
            (
                "latents_traversals",
                draw_traversals(moved, order[:TRAVERSED], context.hop),
                f"A second of utterance {utt}, decoded with one dimension moved by so "
                "many standard deviations (sd) of the aggregate posterior in every "
                "frame. Grey: normalised log-Mel, dark where there is energy. Right: "
                "change of the mean spectrum, all rows on one scale. Dimensions by "
                f"decreasing {rank}.",
            )
        )
    frames = describe_frames(context, utterances)
    found = associations(frames)
    numbers["association"] = found
    figures.append(
        (
            "latents_association",
            draw_associations(found, order, rank),
            "How much of a dimension goes with what is known of its frame: correlation "
            "ratio (groups) or absolute correlation (F0, energy). Dark is much.",
        )
    )
    maps, caption, numbers["pca_variance"] = draw_maps(frames)
    figures.append(("latents_maps", maps, caption))
    strongest = [
        [name, int(np.argmax(row)), float(np.max(row)), float(np.median(row))]
        for name, row in found.items()
    ]
    columns = ("known of the frame", "dimension", "its association", "median of all")
    table = Table("The dimension that goes most with it", columns, strongest)
    paragraphs = "\n\n".join([*text, _TEXT])
    return Section("Continuous latents", paragraphs, figures, [table], numbers)


_TEXT_KL = """
The **KL divergence** says how many nats a dimension tells of a frame: one at zero is
noise of the prior.
"""
_TEXT_TRAVERSALS = """
**Traversals** decode what a dimension does to the spectrum.
"""
_TEXT_DISCRETE = """
The model is discrete: looked at are the vectors that its codes stand for. They have no
posterior, so there is no KL divergence, and between them nothing that was trained to be
decoded, so there are no traversals.
"""
_TEXT = """
**Associations** are the square root of the share of a dimension's variance that the
groups explain (correlation ratio), or the absolute correlation, so 0 is nothing and 1
is all. F0 is measured on voiced frames; `F0 within speaker` from the mean of each.

**What this does not show**: an association with one thing may be due to another
(speakers differ in F0 and in what they read), a dimension that goes with nothing alone
may do so together with others, and distances on a map of two dimensions are not those
of the latent space: t-SNE and UMAP keep neighbours, not distances.
"""


@torch.no_grad()
def kl_per_dimension(context, utterances: list[str]) -> np.ndarray | None:
    """Mean KL divergence of each dimension from the prior.

    Arguments
    ---------
    context : AnalysisContext
    utterances : list of str

    Returns
    -------
    np.ndarray or None
        In nats per latent frame, shape [D]; None without a posterior.
    """
    if not hasattr(context.autoencoder.bottleneck, "posterior"):
        return None
    total, frames = torch.zeros(()), 0
    for utt in utterances:
        code, _ = context.autoencoder.encode(context[utt].log_mel.unsqueeze(0))
        total = total + code.stats["kl_per_dim"].double() * code.latent.shape[1]
        frames += code.latent.shape[1]
    return (total / frames).numpy()


@torch.no_grad()
def aggregate_deviation(context, utterances):
    """Standard deviation of each dimension over all frames and their posteriors [D].

    Of a model without posteriors, that of the features.
    """
    bottleneck = context.autoencoder.bottleneck
    moments, variance = [], 0.0
    for utt in utterances:
        encoded = context[utt]
        moments.append(encoded.features.double())
        if hasattr(bottleneck, "posterior"):
            hidden = context.autoencoder.encoder(encoded.log_mel.unsqueeze(0))
            variance = variance + bottleneck.posterior(hidden)[1].double().exp().sum(
                (0, 1)
            )
    features = torch.cat(moments)
    variance = features.var(0, correction=0) + variance / len(features)
    return variance.sqrt().numpy()


@torch.no_grad()
def traversals(
    context, utt: str, dimensions, deviation: np.ndarray, seconds: float = 1.0
) -> np.ndarray:
    """Decoded frames of a stretch of speech, each time with one dimension moved.

    Arguments
    ---------
    context : AnalysisContext
    utt : str
        Utterance; the stretch is its middle.
    dimensions : iterable of int
    deviation : np.ndarray
        Of :func:`aggregate_deviation`, shape [D].
    seconds : float
        Length of the stretch.

    Returns
    -------
    np.ndarray
        Normalised log-Mel frames, shape [len(dimensions), len(STEPS), T, F].
    """
    encoded = context[utt]
    frames = len(encoded.log_mel)
    rows = []
    for dimension in dimensions:
        latent = encoded.features.repeat(len(STEPS), 1, 1)
        moves = torch.tensor(STEPS) * float(deviation[dimension])
        latent[..., dimension] += moves.unsqueeze(1)
        rows.append(context.autoencoder.decode(latent, None, frames))
    keep = min(frames, round(seconds / context.hop))
    first = (frames - keep) // 2
    return torch.stack(rows)[:, :, first : first + keep].float().numpy()
