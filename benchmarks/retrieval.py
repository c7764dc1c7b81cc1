"""What search and indexing cost, as ratios to bare loops over the same texts in the same run.

    python -m benchmarks.retrieval [--folders FOLDER ...] [--rounds 3]

The pages are the shipped corpus if no folder is named. Indexing is beside the bare work that it cannot do without:
splitting into words, and vectors of every chunk. A search is beside a bare BM25 and a bare product of matrices.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.bench import Table, alternate, cpu, main, ratios
from docstral.corpus import shipped_corpus
from docstral.search import Search, open_search
from docstral.settings import Settings
from docstral.store import Store
from docstral.terms import terms


def questions() -> list[str]:
    "The questions that ship with the corpus."
    lines = (shipped_corpus() / "questions.jsonl").read_text(encoding="utf8").splitlines()
    return [json.loads(line)["question"] for line in lines]


def bare_index(texts: list[str], embedder: Any) -> Any:
    "BM25 of these texts, and their vectors: what an index is made of at the least."
    import bm25s

    index = bm25s.BM25()
    index.index([terms(text) or [""] for text in texts], show_progress=False)
    return index, embedder.embed(texts)


def index_costs(folders: tuple[Path, ...], home: Path) -> Table:
    "Indexing for the first time, and opening the search again with nothing changed."
    settings = Settings(data_dir=home, docs=folders)
    with Store(home / "docstral.duckdb") as store:
        first = cpu(lambda: open_search(store, settings))
        again = cpu(lambda: open_search(store, settings))
        search, report = open_search(store, settings)
        bare = cpu(lambda: bare_index([chunk.search_text for chunk in search.chunks], search.embedder))
    found = {"bare BM25 and vectors": bare, "index, first run": first, "open, nothing changed": again}
    costs = {name: seconds / report.chunks * 1000 for name, seconds in found.items()}
    title = f"Indexing {report.pages:,} pages, {report.chunks:,} chunks"
    note = f"In all: {first:.2f} s the first time, {again:.2f} s with nothing changed."
    return ratios(title, "ms of CPU a chunk", costs, "bare BM25 and vectors", note)


def search_costs(search: Search, rounds: int) -> Table:
    "One question: the whole search, and bare parts of it."
    asked = questions()
    bare, vectors = bare_index([chunk.search_text for chunk in search.chunks], search.embedder)
    known = [[word for word in terms(question) if word in bare.vocab_dict] for question in asked]

    def bm25() -> None:
        for found in known:
            if found:
                bare.get_scores(found).argsort()

    def dense() -> None:
        for question in asked:
            (vectors @ search.embedder.embed([question])[0]).argsort()

    def whole() -> None:
        for question in asked:
            search.passages(question)

    whole()  # once to warm up
    found = alternate({"bare BM25": bm25, "bare vectors": dense, "search": whole}, rounds)
    costs = {name: seconds / len(asked) * 1000 for name, seconds in found.items()}
    both = {"both bare loops": costs.pop("bare BM25") + costs.pop("bare vectors")}
    return ratios(f"Searching, {len(asked)} questions", "ms of CPU a question", both | costs, "both bare loops")


def measure(folders: list[Path], rounds: int) -> Iterator[Table]:
    "Indexing, then searching."
    chosen = tuple(folders) or (shipped_corpus(),)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        yield index_costs(chosen, home)
        with Store(home / "docstral.duckdb") as store:
            search, _ = open_search(store, Settings(data_dir=home, docs=chosen))
            yield search_costs(search, rounds)


if __name__ == "__main__":
    main(__doc__, measure, folders=([], [], []), rounds=(5, 3, 1))
