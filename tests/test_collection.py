"Indexing does what changed and no more, and whatever goes wrong, the answers of before stay."

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from docstral import collection
from docstral import search as search_module
from docstral.collection import Report, folders_to_use
from docstral.embed import StaticEmbedder, Vectors
from docstral.errors import CorpusError, KeyRejectedError
from docstral.search import Search, open_search
from docstral.settings import Settings
from docstral.store import Store, open_store


class CountingEmbedder:
    "The embedded default, noting what it is asked for; it can be told to fail."

    name = StaticEmbedder.name
    dimension = StaticEmbedder.dimension
    local, batch, parallel = True, 256, 1
    unrelated = StaticEmbedder.unrelated

    def __init__(self, real: StaticEmbedder):
        self._real = real
        self.texts: list[str] = []
        self.fails_after: int | None = None  # texts

    def embed(self, texts: Sequence[str]) -> Vectors:
        "Vectors of the texts, unless it is time to fail."
        if self.fails_after is not None and len(self.texts) >= self.fails_after:
            raise KeyRejectedError("The embedder has had enough.")
        self.texts += texts
        return self._real.embed(texts)


class OtherEmbedder(CountingEmbedder):
    "An embedder with a name and a dimension of its own."

    name = "other"
    dimension = 3

    def embed(self, texts: Sequence[str]) -> Vectors:
        "Three directions, by the length of the text."
        self.texts += texts
        return np.eye(3, dtype=np.float32)[[len(text) % 3 for text in texts]]


@pytest.fixture
def counting(embedder: StaticEmbedder, monkeypatch: pytest.MonkeyPatch) -> CountingEmbedder:
    "The embedder that indexing uses in these tests."
    made = CountingEmbedder(embedder)
    monkeypatch.setattr(search_module, "make_embedder", lambda settings: made)
    return made


@pytest.fixture
def folder(pages: Path, tmp_path: Path) -> Path:
    "The pages, to be changed."
    return Path(shutil.copytree(pages, tmp_path / "folder"))


@pytest.fixture
def empty(place: Settings) -> Iterator[Store]:
    "A new database, on each engine."
    with open_store(place) as store:
        yield store


def index(store: Store, folder: Path, choose: bool = False) -> tuple[Search, Report]:
    "Index a folder as the app does."
    return open_search(store, Settings(data_dir=store.folder, docs=(folder,)), choose)


def index_files(store: Store) -> dict[Path, bytes]:
    "All files of the index."
    found = sorted((store.folder / "index").rglob("*"))
    return {path: path.read_bytes() for path in found if path.is_file()}


def test_what_has_not_changed_is_not_read_again(empty: Store, folder: Path, counting: CountingEmbedder) -> None:
    _, first = index(empty, folder)
    assert (first.pages, first.embedded, first.changed) == (4, first.chunks, True)
    _, second = index(empty, folder)
    assert (second.pages, second.chunks, second.embedded, second.changed) == (4, first.chunks, 0, False)
    assert len(counting.texts) == first.chunks


@pytest.mark.parametrize("name", ["collection.FORMAT", "collection.PAGES", "corpus.PAGES"])
def test_another_version_of_docstral_reads_again(
    empty: Store, folder: Path, counting: CountingEmbedder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    index(empty, folder)
    monkeypatch.setattr(f"docstral.{name}", "another")
    if name == "corpus.PAGES":  # both modules see the constant change
        monkeypatch.setattr("docstral.collection.PAGES", "another")
    _, report = index(empty, folder)
    assert report.changed and report.embedded == 0


def test_only_the_changed_section_is_embedded(empty: Store, folder: Path, counting: CountingEmbedder) -> None:
    index(empty, folder)
    counting.texts.clear()
    page = folder / "streaming.md"
    page.write_text(page.read_text() + "\n## New\n\nA section on quokkas.\n")
    search, report = index(empty, folder)
    assert report.changed and report.embedded == 1
    assert counting.texts == ["Stream a chat completion > New\nA section on quokkas."]
    assert search.passages("quokkas")[0].section == "New"


def test_a_touched_page_is_not_embedded_again(empty: Store, folder: Path, counting: CountingEmbedder) -> None:
    index(empty, folder)
    counting.texts.clear()
    (folder / "streaming.md").touch()
    _, report = index(empty, folder)
    assert report.embedded == 0 and counting.texts == []


def test_deleted_pages_disappear_and_renamed_ones_move(empty: Store, folder: Path, counting: CountingEmbedder) -> None:
    index(empty, folder)
    (folder / "embeddings.md").unlink()
    (folder / "streaming.md").rename(folder / "stream.md")
    search, report = index(empty, folder)
    assert (report.pages, report.embedded) == (3, 0)
    assert {chunk.path for chunk in search.chunks} == {"stream.md", "guides/errors.mdx", "fr/flux.md"}
    assert search.passages("stream a chat completion")[0].page == "stream.md"
    assert all(passage.page != "embeddings.md" for passage in search.passages("vector dimensions of mistral-embed"))


def test_what_an_interrupted_run_embedded_is_kept(empty: Store, tmp_path: Path, counting: CountingEmbedder) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(600):
        (folder / f"page{number}.md").write_text(f"# Page {number}\n\nThis page is about number {number}.\n")
    counting.fails_after = 512
    with pytest.raises(KeyRejectedError):
        index(empty, folder)
    assert len(counting.texts) == 512
    counting.fails_after = None
    _, report = index(empty, folder)
    assert (report.chunks, report.embedded, len(counting.texts)) == (600, 88, 600)


@pytest.mark.parametrize("damage", ["cut", "garbage", "missing", "no folder", "no checksums"])
def test_a_damaged_index_is_made_again_without_embedding(
    empty: Store, folder: Path, counting: CountingEmbedder, damage: str
) -> None:
    index(empty, folder)
    before = index(empty, folder)[0].passages("rate limit 429")
    files = index_files(empty)
    if damage == "no folder":
        shutil.rmtree(empty.folder / "index")
    for path, data in files.items() if damage != "no folder" else ():
        if (path.name == "checksums.json") == (damage == "no checksums"):
            path.unlink()
        if damage in ("cut", "garbage"):
            path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\xff" * len(data))
    counting.texts.clear()
    search, report = index(empty, folder)
    assert counting.texts == [] and not report.changed
    assert search.passages("rate limit 429") == before
    assert index_files(empty) == files


@pytest.mark.parametrize("name", ["vectors.faiss", "chunks", "pages", "headings"])
def test_one_wrong_byte_in_any_file_is_noticed(
    empty: Store, folder: Path, counting: CountingEmbedder, name: str
) -> None:
    index(empty, folder)
    files = index_files(empty)
    if empty.shared and name == "vectors.faiss":
        assert not any(name in path.parts for path in files)  # they are in the database
        return
    for path, data in files.items():
        if name in path.parts:
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert index_files(empty) != files
    index(empty, folder)
    assert index_files(empty) == files


def test_a_reindex_that_fails_leaves_the_old_index(empty: Store, folder: Path, counting: CountingEmbedder) -> None:
    page = folder / "streaming.md"
    text = page.read_text()
    search, _ = index(empty, folder)
    before, files = search.passages("stream a chat completion"), index_files(empty)
    counting.fails_after = 0
    page.write_text("# Other\n\nNew text that would have to be embedded.\n")
    with pytest.raises(KeyRejectedError):
        index(empty, folder)
    assert index_files(empty) == files
    page.write_text(text)
    counting.fails_after = None
    counting.texts.clear()
    search, report = index(empty, folder)
    assert report.embedded == 0 and search.passages("stream a chat completion") == before


def test_a_folder_that_lost_all_pages_keeps_its_old_index(
    empty: Store, folder: Path, counting: CountingEmbedder
) -> None:
    index(empty, folder)
    stored = empty.read("SELECT * FROM chunks ORDER BY number")
    for path in folder.rglob("*.md*"):
        path.unlink()
    with pytest.raises(CorpusError):
        index(empty, folder)
    assert empty.read("SELECT * FROM chunks ORDER BY number") == stored


def test_pages_with_headings_but_no_text_are_an_error(empty: Store, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "a.md").write_text("# Only\n\n## Headings\n")
    with pytest.raises(CorpusError, match="no text"):
        index(empty, tmp_path / "bare")


def test_the_folder_chosen_last_answers_until_settings_name_another(
    empty: Store, pages: Path, folder: Path, counting: CountingEmbedder
) -> None:
    settings = Settings(data_dir=empty.folder)
    index(empty, folder, choose=True)
    assert folders_to_use(empty, settings) == (folder.resolve(),)
    index(empty, pages)  # looked into once, not chosen
    assert folders_to_use(empty, settings) == (folder.resolve(),)
    index(empty, pages, choose=True)  # chosen, though nothing has changed
    assert folders_to_use(empty, settings) == (pages.resolve(),)
    assert folders_to_use(empty, settings.but(docs=(folder,))) == (folder.resolve(),)


def test_a_chosen_folder_that_is_gone_still_answers(empty: Store, folder: Path, counting: CountingEmbedder) -> None:
    index(empty, folder, choose=True)
    shutil.rmtree(folder)
    search, report = open_search(empty, Settings(data_dir=empty.folder))
    assert not report.changed and search.passages("stream a chat completion")


def test_the_index_of_the_shipped_corpus_is_used_where_docstral_is_installed_elsewhere(
    empty: Store, folder: Path, tmp_path: Path, counting: CountingEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=empty.folder)
    monkeypatch.setattr(collection, "shipped_corpus", lambda: folder)
    _, built = open_search(empty, settings, choose=True)
    assert built.embedded == built.chunks
    moved = Path(shutil.move(folder, tmp_path / "elsewhere"))
    monkeypatch.setattr(collection, "shipped_corpus", lambda: moved)
    search, report = open_search(empty, settings)
    assert (report.folders, report.changed) == ([str(moved)], False)
    assert search.passages("stream a chat completion")
    for page in moved.rglob("*.md"):
        page.touch()  # as a checkout of the same pages does
    _, report = open_search(empty, settings)
    assert (report.changed, report.embedded) == (not empty.shared, 0)  # on a server files are known by their content


def test_another_embedder_embeds_anew_and_the_vectors_of_the_first_are_kept(
    empty: Store, folder: Path, counting: CountingEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    index(empty, folder)
    other = OtherEmbedder(counting._real)
    monkeypatch.setattr(search_module, "make_embedder", lambda settings: other)
    assert index(empty, folder)[1].embedded == len(other.texts) > 0
    monkeypatch.setattr(search_module, "make_embedder", lambda settings: counting)
    counting.texts.clear()
    assert index(empty, folder)[1].embedded == 0 and counting.texts == []


def test_old_index_files_are_removed(empty: Store, folder: Path, counting: CountingEmbedder) -> None:
    index(empty, folder)
    for number in range(3):
        (folder / "more.md").write_text(f"# More\n\nVersion {number} of a page.\n")
        index(empty, folder)
    assert len(list((empty.folder / "index").iterdir())) == 1


def test_progress_counts_up_to_the_end(empty: Store, folder: Path, counting: CountingEmbedder) -> None:
    seen: list[tuple[str, int, int]] = []
    settings = Settings(data_dir=empty.folder, docs=(folder,))
    open_search(empty, settings, progress=lambda *step: seen.append(step))
    assert {step for step, _, _ in seen} >= {"reading", "splitting", "embedding"}
    assert all(0 <= done <= total for _, done, total in seen)
    assert seen[-1][0] == "embedding" and seen[-1][1] == seen[-1][2]


def test_what_nobody_needs_any_more_goes_when_other_folders_are_chosen(
    empty: Store, folder: Path, counting: CountingEmbedder, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(f"# The {name} page\n\nText of the {name} page.\n")
        index(empty, tmp_path / name, choose=True)
    assert empty.read("SELECT count(*) FROM collections") == [(2,)]  # both folders are there
    shutil.rmtree(tmp_path / "first")
    index(empty, folder)
    assert empty.read("SELECT count(*) FROM collections") == [(3,)]  # a look into other folders removes nothing
    search, _ = index(empty, folder, choose=True)
    if empty.shared:  # a folder that is not here may be on the machine of another copy
        assert empty.read("SELECT count(*) FROM collections") == [(3,)]
        return
    assert empty.read("SELECT count(*) FROM collections") == [(2,)]
    assert empty.read("SELECT count(*) FROM embeddings") == [(len(search.chunks) + 1,)]
    assert len(list((empty.folder / "index").iterdir())) == 2
    assert index(empty, tmp_path / "second")[0].passages("second page")
