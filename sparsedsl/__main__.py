"""`python -m sparsedsl` is the command line."""

import sys

from sparsedsl.cli import main

if __name__ == "__main__":
    sys.exit(main())
