"""`python -m sparsedsl`."""

import sys

from sparsedsl.cli import main

sys.exit(main())
