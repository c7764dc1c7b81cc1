"Lists, votes and weights."

from pathlib import Path

import numpy as np
import pytest

from docstral.errors import SettingsError
from docstral.glossary import glossary, in_english
from docstral.ranking import language_of, path_weights, votes
from docstral.search import Search, open_search
from docstral.settings import Settings
from docstral.store import Store
from docstral.terms import terms


@pytest.fixture
def search(store: Store, settings: Settings) -> Search:
    return open_search(store, settings)[0]


def test_votes_fall_from_one_to_nought() -> None:
    given = votes(np.arange(200.0))
    assert given[-1] == 1 and given[99] == 0 and (np.diff(given) >= 0).all()
    assert votes(np.full(5, 2.0)).tolist() == [1.0] * 5


@pytest.mark.parametrize("text", ["changelog", "=1", "a=b", "a=1, b"])
def test_weights_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="weights"):
        path_weights(["a"], text)


def test_the_lowest_weight_that_fits_counts() -> None:
    assert path_weights(["docs/changelog/old.md"], "changelog=0.7, old=0.5").tolist() == [0.5]


def test_a_weight_moves_a_page_down(store: Store, settings: Settings, search: Search) -> None:
    question = "How do I stream a chat completion?"
    best = search.passages(question)[0].page
    lighter, _ = open_search(store, settings.but(weights=f"{best}=0.01"))
    assert lighter.passages(question)[0].page != best


@pytest.mark.parametrize("question", ["Comment diffuser une réponse ?", "C'est quoi le débit ?", "où est ma clé API"])
def test_french_is_recognised(question: str) -> None:
    assert language_of(question) == "fr"


@pytest.mark.parametrize("question", ["stream", "How do I use the API?", "de facto", "est. time of arrival"])
def test_what_is_not_french_is_not_taken_for_it(question: str) -> None:
    assert language_of(question) == "en"


def test_the_glossary_has_no_empty_entry() -> None:
    assert all(glossary().values())
    assert in_english(terms("la clé de mon compte", "fr")) == terms("key account")


def test_a_question_about_nothing_here_is_not_answered(search: Search) -> None:
    known, unknown = (search.ranker.rank(text) for text in ("stream a chat completion", "bake a chocolate cake"))
    assert known.confidence > unknown.confidence
    assert search.answers(known) and not search.answers(unknown)


@pytest.mark.parametrize("other", ["Claude", "GPT", "gemini"])
def test_somebody_elses_model_makes_a_question_less_sure(search: Search, other: str) -> None:
    theirs, unknown = (search.ranker.rank(f"stream a chat completion with {name}") for name in (other, "Quokka"))
    assert theirs.confidence < unknown.confidence - 0.1


def test_another_maker_counts_as_ours_where_a_heading_names_it(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "move.md").write_text("# Move from Claude\n\nChange the address and the key.\n")
    (folder / "key.md").write_text("# Keys\n\nClaude said: make a key, keep the key.\n")
    search = open_search(store, Settings(data_dir=store.path.parent, docs=(folder,)))[0]
    assert search.answers(search.ranker.rank("move from Claude"))
