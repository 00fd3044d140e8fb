"""``python3 -m bitsmith_driver BUNDLE [--images N]``: run the bundle's samples, print figures as one line of JSON."""

from __future__ import annotations

import argparse
import json
import sys

from .check import check
from .errors import AcceleratorError


def main() -> int:
    """0: every logit is the golden one; 1: not; 2: it could not be run."""
    parser = argparse.ArgumentParser(prog="bitsmith_driver", description=__doc__)
    parser.add_argument("bundle")
    parser.add_argument("--images", type=int)
    options = parser.parse_args()
    try:
        figures = check(options.bundle, images=options.images)
    except AcceleratorError as error:
        print(json.dumps({"error": str(error)}))
        return 2
    print(json.dumps(figures))
    return 1 if figures["wrong_images"] else 0


if __name__ == "__main__":
    sys.exit(main())
