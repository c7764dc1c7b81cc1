"An explanation tells the truth about the search it explains."

from pathlib import Path

import pytest

from docstral.explain import as_text, explain
from docstral.search import Search, open_search
from docstral.settings import Settings
from docstral.store import Store


@pytest.fixture
def search(store: Store, settings: Settings) -> Search:
    return open_search(store, settings)[0]


def test_it_counts_the_passages_that_are_read(search: Search) -> None:
    question = "How do I stream a chat completion?"
    passages = search.passages(question, 4)
    explanation = explain(search, search.ranker.rank(question), 4)
    for candidate in explanation.candidates:
        assert candidate.passages == sum(passage.page == candidate.path for passage in passages)
    assert explanation.candidates[0].path == passages[0].page
    assert sum(candidate.passages for candidate in explanation.candidates) == len(passages)


def test_every_candidate_was_found_by_a_list_and_says_what_became_of_it(search: Search) -> None:
    explanation = explain(search, search.ranker.rank("rate limit 429"), 1)
    assert all(candidate.ranks and candidate.reason for candidate in explanation.candidates)
    scores = [candidate.score for candidate in explanation.candidates]
    assert scores == sorted(scores, reverse=True)


def test_a_filter_is_named_as_the_reason(search: Search) -> None:
    explanation = explain(search, search.ranker.rank("stream a chat", source="nowhere/"))
    assert all(candidate.passages == 0 and candidate.weight == 0 for candidate in explanation.candidates)


def test_a_question_of_unknown_words_is_explained_too(search: Search) -> None:
    explanation = explain(search, search.ranker.rank("xyzzy qwfp"))
    assert explanation.candidates == [] and not explanation.answers
    assert "does not answer" in as_text(explanation)


def test_each_passage_says_whether_it_is_read_and_where(search: Search) -> None:
    question = "How do I stream a chat completion?"
    passages = search.passages(question, 4)
    parts = explain(search, search.ranker.rank(question), 4).parts
    read = [part for part in parts if part.number]
    assert [(part.id, part.number) for part in read] == [(each.id, n) for n, each in enumerate(passages, 1)]
    assert all(part.reason for part in parts) and any(not part.number for part in parts)
    assert [part.score for part in parts] == sorted((part.score for part in parts), reverse=True)


def test_a_passage_that_its_page_has_no_place_for_says_so(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "long.md").write_text("# Quokkas\n" + "".join(f"\n## Quokka {n}\n\nA quokka smiles.\n" for n in range(5)))
    (folder / "other.md").write_text("# Wombats\n\nA wombat meets a quokka.\n")
    search = open_search(store, Settings(data_dir=store.path.parent, docs=(folder,)))[0]
    explanation = explain(search, search.ranker.rank("quokka"), 6)
    cut = [part for part in explanation.parts if not part.number]
    assert [part.page for part in cut] == ["long.md", "long.md"]
    assert all("its page has 3 better ones" in part.reason and part.id in as_text(explanation) for part in cut)


def test_a_passage_that_the_prompt_has_no_room_for_says_so(search: Search) -> None:
    ranking = search.ranker.rank("How do I stream a chat completion?")
    explanation = explain(search, ranking, 3, read=search.read(ranking, 3)[:1])
    assert [part.number for part in explanation.parts if part.number] == [1]
    assert sum("no room" in part.reason for part in explanation.parts) == 2
    assert sum(candidate.passages for candidate in explanation.candidates) == 1
