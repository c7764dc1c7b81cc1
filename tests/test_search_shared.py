"Search with several copies of the app on one PostgreSQL server: the same ranking, indexed once, newer pages taken."

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import orjson
import pytest
from mistral_server import ScriptedMistral

from docstral.corpus import shipped_corpus
from docstral.search import Search, newer_search, open_search
from docstral.settings import Settings
from docstral.store import Store, open_store

QUESTIONS = Path(__file__).parent.parent / "corpus" / "questions.jsonl"
NAMES = "SELECT DISTINCT name FROM vectors"
Copy = Callable[[str], tuple[Store, Settings]]


@pytest.fixture
def copy(database_url: str, tmp_path: Path) -> Iterator[Copy]:
    "Opens the store of a copy of the app: its own data folder and its own pages, and the database of all."
    with ExitStack() as opened:

        def make(name: str) -> tuple[Store, Settings]:
            settings = Settings(data_dir=tmp_path / name, docs=(tmp_path / "pages",), database_url=database_url)
            return opened.enter_context(open_store(settings)), settings

        yield make


@pytest.fixture
def own_pages(pages: Path, tmp_path: Path) -> Path:
    "Pages that a test may change."
    return Path(shutil.copytree(pages, tmp_path / "pages"))


def test_the_ranking_is_the_same_on_both_engines(database_url: str, tmp_path: Path) -> None:
    settings = [
        Settings(data_dir=tmp_path / name, docs=(shipped_corpus(),), database_url=url)
        for name, url in (("file", ""), ("server", database_url))
    ]
    with open_store(settings[0]) as file, open_store(settings[1]) as server:
        mine, _ = open_search(file, settings[0])
        theirs, _ = open_search(server, settings[1])
        assert server.read("SELECT count(*) FROM vectors") == [(len(mine.chunks),)]
        assert not list(settings[1].data_dir.rglob("vectors.faiss"))
        for line in QUESTIONS.read_bytes().splitlines():
            question = orjson.loads(line)["question"]
            here, there = mine.ranker.rank(question), theirs.ranker.rank(question)
            assert mine.best_pages(here) == theirs.best_pages(there), question
            np.testing.assert_allclose(here.page_scores, there.page_scores, atol=1e-5)
            np.testing.assert_allclose(here.confidence, there.confidence, atol=1e-5)
            ours, others = mine.read(here, 10), theirs.read(there, 10)
            assert [passage.id for passage in ours] == [passage.id for passage in others], question
            assert [p.score for p in ours] == pytest.approx([p.score for p in others], abs=1e-4)


def test_of_copies_that_start_together_one_indexes(
    database_url: str, own_pages: Path, mistral: ScriptedMistral, tmp_path: Path
) -> None:
    settings = [
        Settings(
            data_dir=tmp_path / str(number),
            docs=(own_pages,),
            database_url=database_url,
            embedder="mistral",
            mistral_url=mistral.url,
            mistral_api_key="k",
        )
        for number in range(3)
    ]
    with ExitStack() as opened:
        stores = [opened.enter_context(open_store(each)) for each in settings]
        with ThreadPoolExecutor(3) as threads:
            found = list(threads.map(open_search, stores, settings))
        assert sorted(report.changed for _, report in found) == [False, False, True]
        texts = [text for request in mistral.embeddings for text in request.body["input"]]
        assert len(texts) == len(set(texts)) == len(found[0][0].chunks), "every text was embedded once"
        answers = [[p.id for p in search.passages("How do I stream a chat completion?")] for search, _ in found]
        assert answers[0] == answers[1] == answers[2] and answers[0]
        again = [text for request in mistral.embeddings for text in request.body["input"]][len(texts) :]
        assert len(again) == 1, "a question that one copy embedded is known to the others"


def test_a_copy_with_the_same_pages_reads_nothing_anew_whatever_their_dates(copy: Copy, own_pages: Path) -> None:
    store, settings = copy("first")
    open_search(store, settings)
    for path in own_pages.rglob("*.md"):
        path.touch()
    other, other_settings = copy("second")
    assert not open_search(other, other_settings)[1].changed
    (own_pages / "streaming.md").write_text("# Other\n\nAnother text.\n", encoding="utf8")
    assert open_search(other, other_settings)[1].changed


def titles(search: Search, question: str) -> list[str]:
    "The titles of what is found."
    return [passage.title for passage in search.passages(question)]


def test_newer_pages_are_taken_over_and_until_then_the_old_ones_answer(copy: Copy, own_pages: Path) -> None:
    (first, settings), (second, others) = copy("first"), copy("second")
    old, _ = open_search(first, settings)
    before = titles(old, "stream a chat completion")
    assert newer_search(first, settings, old) is None
    (own_pages / "quokka.md").write_text("# Quokka\n\nA quokka smiles.\n", encoding="utf8")
    open_search(second, others)
    assert titles(old, "stream a chat completion") == before, "its vectors are still there"
    assert old.ranker.rank("stream a chat completion").lists["vectors"].any()
    assert not old.passages("Does a quokka smile?")
    newer = newer_search(first, settings, old)
    assert newer and titles(newer, "Does a quokka smile?")[0] == "Quokka"
    assert newer_search(first, settings, newer) is None
    (own_pages / "wombat.md").write_text("# Wombat\n\nA wombat digs.\n", encoding="utf8")
    open_search(second, others)
    assert {name for (name,) in first.read(NAMES)} >= {newer.name} and len(first.read(NAMES)) == 2
    assert old.name not in {name for (name,) in first.read(NAMES)}


def test_a_threshold_that_was_set_elsewhere_is_taken_over(copy: Copy, own_pages: Path) -> None:
    (first, settings), (second, _) = copy("first"), copy("second")
    search, _ = open_search(first, settings)
    second.write(lambda connection: connection.execute("UPDATE collections SET threshold = 0.9") and None).result()
    newer = newer_search(first, settings, search)
    assert newer and newer.threshold == 0.9


def test_vectors_that_are_gone_are_written_again(copy: Copy, own_pages: Path) -> None:
    store, settings = copy("first")
    search, _ = open_search(store, settings)
    store.write(lambda connection: connection.execute("DELETE FROM vectors") and None).result()
    assert not open_search(store, settings)[1].changed
    assert store.read("SELECT count(*) FROM vectors") == [(len(search.chunks),)]


def test_what_belongs_to_another_machine_is_not_forgotten(copy: Copy, own_pages: Path, tmp_path: Path) -> None:
    store, settings = copy("first")
    elsewhere = Path(shutil.copytree(own_pages, tmp_path / "elsewhere"))
    open_search(store, settings.but(docs=(elsewhere,)))
    shutil.rmtree(elsewhere)  # as seen from here
    open_search(store, settings, choose=True)
    assert store.read("SELECT count(*) FROM collections") == [(2,)]


def test_without_its_database_a_search_says_so(copy: Copy, own_pages: Path) -> None:
    store, settings = copy("first")
    search, _ = open_search(store, settings)
    store.close()
    ranking = search.ranker.rank("How do I stream a chat completion?")
    assert "Words alone" in ranking.notice and search.read(ranking)
