"""`python -m docstral` is the same as `docstral`."""

import sys

from docstral.cli import main

sys.exit(main())
