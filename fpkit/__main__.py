"""``python -m fpkit`` is the command ``fpkit``."""

import sys

from fpkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
