#!/usr/bin/env python3
"""VQ, SFVQ and a Hilbert curve on distributions in the plane.

> python recipes/Interpret/toy.py --codes 64 --output results/toy
"""

import argparse
import sys
from pathlib import Path

from speechbrain_vae.analysis.report import write_report
from speechbrain_vae.analysis.toy import section
from speechbrain_vae.errors import one_line_errors


def main(argv):
    """Train, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--codes", type=int, default=64, help="number of codes K")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("results/toy"))
    arguments = parser.parse_args(argv)
    with one_line_errors():
        if arguments.codes < 4:
            raise ValueError(f"--codes must be at least 4; got {arguments.codes}")
        toy = section(arguments.codes, seed=arguments.seed)
        print(write_report(arguments.output, "Quantisers in the plane", [toy]))


if __name__ == "__main__":
    main(sys.argv[1:])
