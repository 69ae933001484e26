#!/usr/bin/env python3
"""Look inside an export: one command, one report.

> python recipes/Interpret/analyze.py results/sfvq/1234/export \
>     --corpus speechocean762 --data_folder D --compare results/vqvae/1234/export

What quantisers do in the plane, and how the curve grows: recipes/Interpret/toy.py.
"""

import argparse
import html
import importlib
import logging
import sys
import time
from pathlib import Path

from speechbrain_vae.analysis.abx import CONTEXTS
from speechbrain_vae.analysis.context import (
    AnalysisContext,
    NotApplicable,
    open_entries,
)
from speechbrain_vae.analysis.discrimination import CONTEXT, open_items
from speechbrain_vae.analysis.phones import UnknownPhoneError
from speechbrain_vae.analysis.report import Section, write_report
from speechbrain_vae.dataio.prepare import CORPORA
from speechbrain_vae.errors import one_line_errors

logger = logging.getLogger(__name__)

SECTIONS = ("overtime", "codes", "order", "latents", "discrimination", "retrieval")
"""Modules of ``speechbrain_vae.analysis`` with a function ``section``, in order."""

LIMIT = 500
"""Utterances that are enough for every section and take minutes."""


def parse(argv):
    """The command line."""
    description, _, after = __doc__.split("\n\n")
    parser = argparse.ArgumentParser(description=description, epilog=after)
    parser.add_argument("export", help="folder of an export, or ID on the Hub")
    parser.add_argument("--corpus", required=True, choices=CORPORA)
    parser.add_argument("--data_folder", required=True, help="folder of the corpus")
    parser.add_argument(
        "--alignment", help="phone times in place of those of the corpus"
    )
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
    parser.add_argument(
        "--utterances",
        type=int,
        default=LIMIT,
        help=f"how many to look at, of all speakers alike; 0 for all (default {LIMIT})",
    )
    parser.add_argument(
        "--compare", nargs="+", default=[], help="exports to hold against it"
    )
    parser.add_argument(
        "--items",
        help="ZeroSpeech item file for ABX; by default every phone is an item",
    )
    parser.add_argument(
        "--abx_context",
        default=CONTEXT,
        choices=CONTEXTS,
        help=f"what A, B and X of ABX have in common (default {CONTEXT})",
    )
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument(
        "--output", type=Path, default=Path("results/interpret"), help="folder"
    )
    return parser.parse_args(argv)


def open_context(arguments):
    """The export, those it is compared with, and the utterances."""
    if arguments.utterances < 0:
        raise ValueError(
            f"--utterances must be 0, for all, or more; got {arguments.utterances}"
        )
    probe = AnalysisContext(arguments.export, {"": {}})
    entries = open_entries(
        arguments.corpus,
        arguments.data_folder,
        arguments.output / "manifests",
        arguments.alignment,
        arguments.split,
        arguments.utterances or None,
        probe.sample_rate,
    )
    context = AnalysisContext(arguments.export, entries)
    for source in arguments.compare:
        other = AnalysisContext(source, entries)
        taken = {context.name, *(one.name for one in context.others)}
        if other.name in taken:
            other.name = f"{other.name} ({len(context.others) + 2})"
        if other.sample_rate != context.sample_rate:
            raise ValueError(
                f"{source} is for {other.sample_rate} Hz, {arguments.export} for "
                f"{context.sample_rate} Hz; compare models of one rate"
            )
        context.others.append(other)
    return context


def analyse(context, names=SECTIONS, **abx):
    """The sections that apply to an export.

    Arguments
    ---------
    context : AnalysisContext
    names : iterable of str
        Of :data:`SECTIONS`.
    **abx
        Arguments of :func:`speechbrain_vae.analysis.discrimination.section`.

    Returns
    -------
    list of Section
    """
    sections, missing = [], {}
    for name in names:
        begin = time.monotonic()
        try:
            module = importlib.import_module(f"speechbrain_vae.analysis.{name}")
            options = abx if name == "discrimination" else {}
            sections.append(module.section(context, **options))
        except (NotApplicable, UnknownPhoneError) as error:
            missing[name] = str(error)
        except ModuleNotFoundError as error:
            missing[name] = f'{error}: pip install "speechbrain-vae[analysis]"'
        logger.info("%s: %.0f s", name, time.monotonic() - begin)
    if missing:
        text = "".join(
            f"<li>{name}: {html.escape(why)}</li>" for name, why in missing.items()
        )
        sections.append(Section("Left out", f"<ul>{text}</ul>", numbers=missing))
    return sections


def main(argv):
    """Encode, measure, draw and write."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parse(argv)
    with one_line_errors():
        context = open_context(arguments)
        items = arguments.items and open_items(arguments.items, context.entries)
        models = [context, *context.others]
        notes = "".join(
            f"<li><strong>{model.name}</strong>: `{model.source}`, "
            f"{model.feature_size} numbers every {1000 * model.frame_shift:g} ms</li>"
            for model in models
        )
        path = write_report(
            arguments.output,
            f"Inside {context.name}",
            analyse(
                context,
                arguments.sections,
                items=items,
                abx_context=arguments.abx_context,
            ),
            f"{len(context.entries)} utterances of {arguments.corpus} "
            f"({arguments.split}), {len(set(context.speakers.values()))} speakers.\n\n"
            f"<ul>{notes}</ul>",
        )
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
