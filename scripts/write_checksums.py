"""Write corpus/checksums.tsv, the list that `docstral corpus sync` verifies against.

`python scripts/write_checksums.py FOLDER`: FOLDER holds a checkout of each repository of corpus/sources.toml at its
commit, under the source's name. Only names, sizes and hashes are written: no content, nothing of where FOLDER is.
"""

import hashlib
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).resolve().parent.parent / "corpus"
PAGES = {".md", ".mdx"}
LICENCES = {"LICENSE", "LICENCE"}


def lines(folder: Path, name: str) -> Iterator[str]:
    "The lines of one source: its name, path within the repository, size in bytes, SHA-256; by path."
    checkout = folder / name
    found = [path for path in checkout.rglob("*") if path.suffix in PAGES and path.is_file() and not path.is_symlink()]
    found += [checkout / licence for licence in LICENCES if (checkout / licence).is_file()]
    for path in sorted(found, key=lambda path: path.relative_to(checkout).as_posix()):
        data = path.read_bytes()
        place = path.relative_to(checkout).as_posix()
        yield f"{name}\t{place}\t{len(data)}\t{hashlib.sha256(data).hexdigest()}\n"


def main() -> None:
    "Write the list, or change nothing where a source is missing."
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    folder = Path(sys.argv[1])
    sources = tomllib.loads((CORPUS / "sources.toml").read_text(encoding="utf8"))["source"]
    written: list[str] = []
    for name in sorted(source["name"] for source in sources):
        if not (found := list(lines(folder, name))):
            sys.exit(f"There is no page of {name} in {folder}; corpus/checksums.tsv is as it was.")
        print(f"{name}: {len(found)} files")
        written += found
    (CORPUS / "checksums.tsv").write_text("".join(written), encoding="utf8", newline="\n")
    print(f"corpus/checksums.tsv: {len(written)} files")


if __name__ == "__main__":
    main()
