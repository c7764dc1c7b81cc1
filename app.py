"""Serve DocStral: the web app at / and the API beside it. Also what a Hugging Face Space runs."""

import os
import sys
from pathlib import Path

from docstral.cli import main

if __name__ == "__main__":
    if "SPACE_ID" in os.environ:  # the Space's own proxy asks from outside; `make space` put the index beside this file
        os.environ.setdefault("DOCSTRAL_HOST", "0.0.0.0")
        os.environ.setdefault("FORWARDED_ALLOW_IPS", "*")  # nothing else reaches it
        os.environ.setdefault("DOCSTRAL_DATA_DIR", str(Path(__file__).resolve().parent / "data"))
    sys.exit(main(["serve", *sys.argv[1:]]))
