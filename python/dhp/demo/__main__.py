"""`python -m dhp.demo FOLDER`: media, samples and a tiny checkpoint to train on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dhp._core import InputError
from dhp.base.output import complain
from dhp.demo.families import TINY_FAMILIES
from dhp.demo.prepare import PACKAGES, prepare


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m dhp.demo",
        description="Prepare pictures, clips, samples and a tiny checkpoint. Media come from the packages "
        + ", ".join(package.pin for package in PACKAGES)
        + ".",
    )
    parser.add_argument("folder", metavar="FOLDER", help="where to put them; what is there and whole is left alone")
    kinds = [name for name, family in TINY_FAMILIES.items() if family.video and family.demo]
    parser.add_argument("--model", choices=kinds, default=kinds[0], metavar="FAMILY", help=", ".join(kinds))
    args = parser.parse_args(argv)
    try:
        made = prepare(args.folder, args.model)
    except InputError as error:
        complain(f"dhp.demo: error: {error}")
        return 2
    print(f"{args.folder}: {'prepared' if made else 'is there already'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
