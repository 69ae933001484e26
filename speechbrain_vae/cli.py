"""The command ``speechbrain-vae``.

> speechbrain-vae extract results/vae/1234/export recordings --out features
> speechbrain-vae info results/vae/1234/export
"""

import argparse
import logging
import os
import sys

from speechbrain_vae.errors import one_line_errors


def main(argv=None):
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        prog="speechbrain-vae", description="Use a pretrained speech encoder."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    extract = commands.add_parser(
        "extract",
        help="features of a folder of audio",
        description="Encode every audio file below a folder. Given again after an "
        "interruption, the same command goes on where it was.",
    )
    info = commands.add_parser("info", help="what a model is")
    for command in (extract, info):
        command.add_argument("export", help="folder of an export, or user/name")
        command.add_argument(
            "--trust-code",
            action="store_true",
            help="let the export name any class; it then runs with your rights",
        )
    extract.add_argument("folder", help="tree of WAV, FLAC, Ogg, Opus and MP3 files")
    extract.add_argument(
        "--out", required=True, type=os.path.expanduser, help="folder to write to"
    )
    extract.add_argument(
        "--format", default="npy", choices=["npy", "hdf5", "kaldi", "tokens"]
    )
    extract.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args(argv)
    with one_line_errors():
        if args.command == "extract":
            run_extract(args)
        else:
            print_info(args.export, args.trust_code)


def run_extract(args):
    """Extract, and say how many."""
    # Imported here: the help of a command needs no PyTorch.
    from speechbrain_vae.extraction import MANIFEST, extract

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    manifest = extract(
        args.export, args.folder, args.out, args.format, args.device, args.trust_code
    )
    used = [entry for entry in manifest if "frames" in entry]
    print(
        f"{len(used)} files, {sum(entry['frames'] for entry in used)} frames, "
        f"{len(manifest) - len(used)} skipped: {args.out}/{MANIFEST}"
    )


def print_info(export, trust_code=False):
    """Print what a model is, a fact a line."""
    from speechbrain_vae.dataio.manifests import printable
    from speechbrain_vae.export import read_export

    facts = describe(read_export(export, trust_code=trust_code))
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {printable(value)}")


def describe(export):
    """Facts of a model by name.

    Arguments
    ---------
    export : speechbrain_vae.export.Export

    Returns
    -------
    dict of str to str

    Example
    -------
    >>> from speechbrain_vae.export import read_export
    >>> facts = describe(read_export(getfixture("tiny_export")))
    >>> facts["frame shift"], facts["context of a frame"]
    ('20 ms', '40 ms to each side')
    """
    from speechbrain_vae.inference.streaming import receptive_frames

    model, features = export.autoencoder, export.features
    shift = export.hparams["frame_shift"]
    parts = ("encoder", "bottleneck", "decoder", "likelihood", "target")
    facts = {name: type(getattr(model, name)).__name__ for name in parts}
    quantiser = getattr(model.bottleneck, "quantiser", None)
    if quantiser is not None:
        facts["quantiser"] = type(quantiser).__name__
        facts["codes of a frame"] = f"{quantiser.groups} of {quantiser.codebook_size}"
    reach = receptive_frames(model.encoder, features.size)
    return facts | {
        "features": f"{export.hparams['feature_size']} numbers",
        "frame shift": f"{1000 * shift:g} ms",
        "context of a frame": "the whole recording"
        if reach is None
        else f"{1000 * shift * reach:g} ms to each side",
        "sampling rate": f"{export.hparams['sample_rate']} Hz",
        "normalisation": features.normalisation,
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "format version": str(export.hparams["export_version"]),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
