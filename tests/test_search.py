"Search: the right page first, nothing for words that no page has, the same each time."

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from docstral import search as module
from docstral.corpus import shipped_corpus
from docstral.embed import StaticEmbedder, Vectors
from docstral.errors import UnreachableError
from docstral.ranking import Ranker, Ranking, language_of
from docstral.search import Search, open_search
from docstral.settings import Settings
from docstral.store import Store


@pytest.fixture(scope="module")
def search(indexed: Path, pages: Path, tmp_path_factory: pytest.TempPathFactory) -> Search:
    "A search over the four pages."
    with Store(tmp_path_factory.mktemp("search") / "docstral.duckdb") as store:
        return open_search(store, Settings(data_dir=store.path.parent, docs=(pages,)))[0]


@pytest.mark.parametrize(
    ("question", "page", "section"),
    [
        ("How do I stream a chat completion?", "streaming.md", ""),
        ("How do I know that a stream has ended?", "streaming.md", "End of a stream"),
        ("How many dimensions does a vector of mistral-embed have?", "embeddings.md", ""),
        ("what does HTTP 429 mean", "guides/errors.mdx", "Rate limits"),
        ("RETRY-AFTER", "guides/errors.mdx", "Rate limits"),
        ("Comment recevoir la réponse en flux ?", "fr/flux.md", ""),
    ],
)
def test_the_page_that_answers_comes_first(search: Search, question: str, page: str, section: str) -> None:
    best = search.passages(question)[0]
    assert (best.page, best.section) == (page, section)


@pytest.mark.parametrize(
    "question", ["", "   ", "?!", "the of and", "xyzzy qwfp", "日本語", "\x00", "🙂" * 100, "a" * 4000]
)
def test_words_that_no_page_has_find_nothing(search: Search, question: str) -> None:
    assert search.passages(question) == []


def test_results_are_ordered_distinct_and_as_many_as_asked_for(search: Search) -> None:
    for k in (0, 1, 3, 100):
        passages = search.passages("stream a chat completion with a rate limit", k)
        assert len(passages) <= k
        assert len({passage.id for passage in passages}) == len(passages)
        assert [passage.score for passage in passages] == sorted((p.score for p in passages), reverse=True)
    assert len(search.passages("stream a chat completion", 2)) == 2


def test_a_passage_links_as_near_to_its_section_as_is_known(search: Search) -> None:
    streaming = search.passages("know that the stream is finished")[0]
    assert streaming.url == "https://docs.example.org/streaming"  # whose anchors nobody knows
    errors = search.passages("HTTP status 429")[0]
    assert errors.url == "guides/errors.mdx#limits"
    assert streaming.label == "Stream a chat completion > End of a stream"


def test_licence_and_language_travel_with_a_passage(search: Search) -> None:
    best = search.passages("stream a chat completion")[0]
    assert (best.licence, best.language) == ("CC-BY-4.0", "en")


def test_the_same_question_finds_the_same_from_many_threads(search: Search) -> None:
    questions = ["stream a chat", "vector dimensions", "rate limit 429", "réponse en flux"] * 8
    alone = [search.passages(question) for question in questions]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(search.passages, questions)) == alone


def test_a_search_needs_no_database_once_it_is_open(search: Search) -> None:
    assert search.passages("stream")  # the fixture closed its database


def test_one_single_chunk_can_be_searched(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.md").write_text("# Quokka\n\nA quokka smiles.\n")
    with Store(tmp_path / "docstral.duckdb") as store:
        search, _ = open_search(store, Settings(data_dir=tmp_path, docs=(tmp_path / "one",)))
    assert [passage.text for passage in search.passages("Does a quokka smile?")] == ["A quokka smiles."]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Comment utiliser le mode JSON ?", "fr"),
        ("Qu'est-ce qu'une clé d'API ?", "fr"),
        ("How do I use JSON mode?", "en"),
        ("What is la Plateforme?", "en"),
        ("", "en"),
    ],
)
def test_the_language_of_a_question(text: str, language: str) -> None:
    assert language_of(text) == language


SHIPPED = {
    "How do I stream a chat completion?": "stream",
    "What does HTTP 429 mean?": "rate",
    "How do I run a model with vLLM?": "vllm",
    "How do I get JSON output?": "json",
    "How do I call a function from a model?": "function",
    "How do I create embeddings?": "embed",
}


def test_the_shipped_corpus_answers_what_people_ask_most(tmp_path: Path) -> None:
    with Store(tmp_path / "docstral.duckdb") as store:
        search, report = open_search(store, Settings(data_dir=tmp_path, docs=(shipped_corpus(),)))
    assert report.problems == []
    for question, word in SHIPPED.items():
        assert any(word in f"{p.label} {p.text}".lower() for p in search.passages(question, 2)), question


@pytest.mark.parametrize("why", ["", "the question is long", "there are many chunks", "a server embeds"])
async def test_an_event_loop_is_kept_by_quick_searches_alone(
    store: Store, pages: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    ranked_by: list[int] = []
    rank = Ranker.rank

    def noted(self: Ranker, question: str) -> Ranking:
        ranked_by.append(threading.get_ident())
        return rank(self, question)

    monkeypatch.setattr(Ranker, "rank", noted)
    if why == "there are many chunks":
        monkeypatch.setattr(module, "FEW_CHUNKS", 1)
    monkeypatch.setattr(StaticEmbedder, "local", why != "a server embeds")
    search = open_search(store, Settings(data_dir=store.path.parent, docs=(pages,)))[0]
    question = "How do I stream a chat completion?" * (100 if why == "the question is long" else 1)
    assert search.read(await search.rank(question))[0].page == "streaming.md"
    assert (ranked_by == [threading.get_ident()]) is (why == "")


async def test_a_question_that_was_asked_before_finds_the_same_without_a_search(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await search.rank("what does HTTP 429 mean")
    monkeypatch.setattr(Ranker, "rank", None)
    again = await search.rank("what does HTTP 429 mean")
    assert search.read(again) == search.read(first) and again.confidence == first.confidence
    assert list(first.seconds) == ["words", "vectors", "fusion"] and again.seconds == {"remembered": 0.0}
    with pytest.raises(TypeError):
        await search.rank("What does HTTP 429 mean?")


async def test_what_was_found_without_vectors_is_searched_for_again(
    search: Search, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(texts: Sequence[str]) -> Vectors:
        raise UnreachableError("The embedder is down.")

    with monkeypatch.context() as context:
        context.setattr(search.ranker._embedder, "embed", down)
        assert "Words alone" in (await search.rank("a stream that has ended")).notice
    ranking = await search.rank("a stream that has ended")
    assert not ranking.notice and ranking.lists["vectors"].any()
