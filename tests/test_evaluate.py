"The search on the questions that ship with the corpus: it may not fall below what it was."

from pathlib import Path

import pytest

from docstral.corpus import shipped_corpus
from docstral.errors import CorpusError
from docstral.evaluate import evaluate, read_questions
from docstral.search import open_search
from docstral.settings import Settings
from docstral.store import Store

# Measured: hit@1 .66, hit@5 .95, MRR@10 .78, French hit@5 .95, refused .58, lost .05
FLOORS = {"hit@1": 0.62, "hit@5": 0.90, "MRR@10": 0.74, "refused": 0.52}
MOST_LOST = 0.06


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> dict:
    home = tmp_path_factory.mktemp("evaluation")
    with Store(home / "docstral.duckdb") as store:
        search, _ = open_search(store, Settings(data_dir=home))
        return evaluate(search, read_questions(shipped_corpus() / "questions.jsonl"))


@pytest.mark.parametrize("name", FLOORS)
def test_search_is_as_good_as_it_was(evaluation: dict, name: str) -> None:
    assert evaluation["figures"]["fused"][name] >= FLOORS[name]


def test_few_questions_with_an_answer_are_refused(evaluation: dict) -> None:
    assert evaluation["figures"]["fused"]["lost"] <= MOST_LOST


def test_french_questions_find_their_pages(evaluation: dict) -> None:
    assert evaluation["figures"]["fused, fr"]["hit@5"] >= 0.85


def test_fusion_beats_its_parts(evaluation: dict) -> None:
    figures = evaluation["figures"]
    assert figures["fused"]["hit@5"] > max(figures["BM25 of chunks"]["hit@5"], figures["vectors"]["hit@5"])


def test_the_questions_are_sound() -> None:
    questions = read_questions(shipped_corpus() / "questions.jsonl")
    assert len({question.id for question in questions}) == len(questions) >= 60
    assert sum(not question.answerable for question in questions) / len(questions) >= 0.19
    for question in questions:
        assert bool(question.expected) == question.answerable, question.id
        assert all((shipped_corpus() / path).is_file() for path in question.expected), question.id


@pytest.mark.parametrize(
    "text", ["", "{", '{"question": "no id"}', '{"id": "a", "question": "b", "unknown": 1}', "\xff", "[" * 100_000]
)
def test_a_broken_file_of_questions_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(CorpusError, match=r"questions\.jsonl"):
        read_questions(path)
