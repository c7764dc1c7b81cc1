"""Serve DocStral: the web app at / and the API beside it. Also what a Hugging Face Space runs."""

import sys

from docstral.cli import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
