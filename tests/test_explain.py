"An explanation tells the truth about the search it explains."

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
