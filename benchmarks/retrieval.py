"""What search and indexing cost, as ratios to bare loops over the same texts in the same run.

    python benchmarks/retrieval.py [FOLDER ...] [--rounds 3]

FOLDER: pages to index (default: the shipped corpus). Times are CPU seconds of this process, medians over the rounds;
a machine's load moves them less than it moves the clock, and the ratios less still.
"""

import argparse
import json
import logging
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from docstral.corpus import shipped_corpus
from docstral.search import Search, open_search
from docstral.settings import Settings
from docstral.store import Store
from docstral.terms import terms


def cpu(work: Callable[[], object], rounds: int = 1) -> float:
    "Median CPU seconds of some work."
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def questions() -> list[str]:
    "The questions that ship with the corpus."
    lines = (shipped_corpus() / "questions.jsonl").read_text(encoding="utf8").splitlines()
    return [json.loads(line)["question"] for line in lines]


def index_costs(folders: tuple[Path, ...], home: Path) -> dict[str, float]:
    "CPU seconds to index folders for the first time, and to open the search again with nothing changed."
    settings = Settings(data_dir=home, docs=folders)
    with Store(home / "docstral.duckdb") as store:
        return {
            "index, first run": cpu(lambda: open_search(store, settings)),
            "open, nothing changed": cpu(lambda: open_search(store, settings)),
        }


def search_costs(search: Search, rounds: int) -> dict[str, float]:
    "CPU seconds of one question: the whole search, and bare parts of it."
    import bm25s

    asked = questions()
    words = [terms(chunk.search_text) or [""] for chunk in search.chunks]
    bare = bm25s.BM25()
    bare.index(words, show_progress=False)
    known = [[word for word in terms(question) if word in bare.vocab_dict] for question in asked]
    vectors = search.embedder.embed([chunk.search_text for chunk in search.chunks])

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
    return {name: cpu(work, rounds) / len(asked) for name, work in
            {"bare BM25": bm25, "bare vectors": dense, "search": whole}.items()}  # fmt: skip


def main() -> None:
    "Measure and print."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    folders = tuple(arguments.folders) or (shipped_corpus(),)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        costs = index_costs(folders, home)
        with Store(home / "docstral.duckdb") as store:
            search, report = open_search(store, Settings(data_dir=home, docs=folders))
            print(f"{report.pages} pages, {report.chunks} chunks\n")
            for name, seconds in costs.items():
                print(f"{name:24}{seconds:8.2f} s CPU{seconds / report.chunks * 1000:10.2f} ms a chunk")
            print(f"{'memory, at most':24}{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.0f} MB")
            found = search_costs(search, arguments.rounds)
            base = found["bare BM25"] + found["bare vectors"]
            for name, seconds in found.items():
                print(f"{name:24}{seconds * 1000:8.2f} ms CPU{seconds / base:9.2f} of both bare loops")


if __name__ == "__main__":
    main()
