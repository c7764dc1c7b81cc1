"Fetching the public documentation: from a real server on this machine, with a small list of its own."

import asyncio
import errno
import hashlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import pytest

from docstral import sync as module
from docstral.corpus import find_files, read_folders, shipped_corpus
from docstral.errors import CorpusError, SettingsError, UnreachableError
from docstral.sync import SyncReport, listed_files, sync, sync_now

NAME = "platform-docs-public"
COMMIT = "222f4ba9114f84ce9f2d718b9a12fbac1e527f4b"
ENGLISH = "src/content/en/docs/studio/start/page.mdx"
FRENCH = "src/content/fr/docs/studio/start/page.mdx"
ODD = "changelog/en/a b [é] 100%.mdx"
PARTIAL = "src/content/en/docs/studio/start/_tab.mdx"
CONTENTS = {
    "LICENSE": b"Anyone may read this.",
    ENGLISH: b"# Start\n\nWelcome.\n",
    FRENCH: "# Débuter\n\nBienvenue.\n".encode(),
    ODD: b"# News\n\nNothing new.\n",
    PARTIAL: b"Part of a page.\n",
    "README.md": b"# Docs\n\nRead them.\n",
}
ALL = len(CONTENTS)


@dataclass
class Mirror:
    "A server on this machine. `script` holds, for a path, how its next requests go; afterwards they go well."

    contents: dict[str, bytes] = field(default_factory=lambda: dict(CONTENTS))
    script: dict[str, list[str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    address: str = ""
    over: threading.Event = field(default_factory=threading.Event)  # what is silent waits for it


class Handler(BaseHTTPRequestHandler):
    "Serves a `Mirror` below /mistralai/platform-docs-public/COMMIT/."

    mirror: Mirror

    def do_GET(self) -> None:
        path = unquote(self.path).removeprefix(f"/mistralai/{NAME}/{COMMIT}/")
        self.mirror.asked.append(path)
        steps = self.mirror.script.get(path, [])
        how = steps.pop(0) if steps else ""
        data = self.mirror.contents.get(path)
        if how == "drop":
            return
        if how.startswith("429") or how.isdecimal() or data is None:
            status, _, wait = (how or "404").partition(" ")
            self.send_response(int(status))
            if wait:
                self.send_header("Retry-After", wait)
            if status == "302":
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            return
        self.send_response(200)
        if how == "silence":
            self.mirror.over.wait(20)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if how == "truncate" else data)

    def log_message(self, *arguments: object) -> None:
        "Say nothing."


class Server(ThreadingHTTPServer):
    "A server whose queue has room for all workers: past it, the system makes callers wait a second."

    request_queue_size = 64

    def handle_error(self, *arguments: object) -> None:
        "A caller that hangs up is what some tests are about."


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    "Retries that do not wait."
    monkeypatch.setattr(module, "FIRST_WAIT", 0.001)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    "A server that has all pages."
    served = Mirror()
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"mirror": served}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    served.address = f"http://127.0.0.1:{server.server_port}"
    yield served
    served.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    "A folder with a list of the pages of the server."
    folder = tmp_path / "list"
    folder.mkdir()
    (folder / "sources.toml").write_text(
        f'[[source]]\nname = "{NAME}"\nrepository = "https://github.com/mistralai/{NAME}"\n'
        f'commit = "{COMMIT}"\nlicence = "Apache-2.0"\n'
    )
    write_list(folder, CONTENTS)
    return folder


def write_list(folder: Path, contents: dict[str, bytes]) -> None:
    "Write the list of these files."
    lines = [f"{NAME}\t{path}\t{len(data)}\t{hashlib.sha256(data).hexdigest()}\n" for path, data in contents.items()]
    (folder / "checksums.tsv").write_text("".join(lines), encoding="utf8")


@pytest.fixture
def run(mirror: Mirror, listing: Path, tmp_path: Path) -> Any:
    "Sync from the server into a folder."

    async def run(**wishes: Any) -> SyncReport:
        return await sync(**{"folder": tmp_path / "pages", "base_url": mirror.address, "corpus": listing} | wishes)

    return run


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    "Where the pages of the source are after a run."
    return tmp_path / "pages" / NAME


def files_below(folder: Path) -> dict[str, bytes]:
    "Every file below a folder with its content."
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_fetches_everything_then_nothing(run: Any, mirror: Mirror, pages: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    report = await run(progress=lambda *step: steps.append(step))
    assert (report.fetched, report.kept, report.failed) == (ALL, 0, [])
    assert report.bytes == sum(map(len, CONTENTS.values())) and report.seconds > 0
    assert files_below(pages) == CONTENTS
    assert steps == [("fetching", done, ALL) for done in range(ALL + 1)]

    mirror.asked.clear()
    again = await run()
    assert (again.fetched, again.kept, again.bytes, mirror.asked) == (0, ALL, 0, [])


async def test_licences_come_first(run: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 1)
    await run()
    assert mirror.asked[0] == "LICENSE"


async def test_pages_keep_licence_and_public_address(run: Any, pages: Path) -> None:
    await run()
    found, problems = read_folders([pages.parent])
    assert not problems
    assert {page.licence for page in found} == {"Apache-2.0"}
    addresses = {page.path.removeprefix(f"{NAME}/"): (page.url, page.language) for page in found}
    assert addresses[ENGLISH] == ("https://docs.mistral.ai/studio/start", "en")
    assert addresses[FRENCH] == ("https://docs.mistral.ai/fr/studio/start", "fr")
    header, *lines = (pages.parent / "SOURCES.tsv").read_text(encoding="utf8").splitlines()
    assert header == "path\trepository\tcommit\tlicence\taddress"
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
    assert set(rows) == {f"{NAME}/{path}" for path in CONTENTS}
    repository = f"mistralai/{NAME}"
    assert rows[f"{NAME}/{ENGLISH}"] == [repository, COMMIT, "Apache-2.0", "https://docs.mistral.ai/studio/start"]
    assert rows[f"{NAME}/{PARTIAL}"][-1] == f"https://github.com/{repository}/blob/{COMMIT}/{PARTIAL}"


async def test_changed_and_lost_files_are_fetched_again(run: Any, mirror: Mirror, pages: Path) -> None:
    await run()
    mirror.asked.clear()
    (pages / ENGLISH).write_bytes(b"# START" + CONTENTS[ENGLISH][7:])  # of the same size
    (pages / FRENCH).unlink()
    report = await run()
    assert (report.fetched, report.kept, sorted(mirror.asked)) == (2, ALL - 2, [ENGLISH, FRENCH])
    assert files_below(pages) == CONTENTS


async def test_interrupted_run_resumes(run: Any, mirror: Mirror, pages: Path) -> None:
    mirror.script = {ENGLISH: ["drop"] * 20, FRENCH: ["truncate"] * 20}
    report = await run()
    assert report.fetched == ALL - 2
    assert [problem.path for problem in report.failed] == [f"{NAME}/{ENGLISH}", f"{NAME}/{FRENCH}"]
    assert all("cut" in problem.reason for problem in report.failed) and "2 failed" in report.line()
    mirror.script.clear()
    mirror.asked.clear()
    assert (await run()).fetched == 2
    assert sorted(mirror.asked) == [ENGLISH, FRENCH]
    assert files_below(pages) == CONTENTS


async def test_cancelled_run_leaves_whole_files(run: Any, mirror: Mirror, pages: Path) -> None:
    "Ctrl+C cancels the task: what is there is whole and named in SOURCES.tsv, and the next run fetches the rest."
    mirror.script = {FRENCH: ["silence"]}
    all_but_one = asyncio.Event()
    task = asyncio.create_task(run(progress=lambda step, done, total: done == ALL - 1 and all_but_one.set()))
    await asyncio.wait_for(all_but_one.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    there = files_below(pages)
    assert there == {path: data for path, data in CONTENTS.items() if path != FRENCH}
    assert len((pages.parent / "SOURCES.tsv").read_text(encoding="utf8").splitlines()) == 1 + ALL - 1
    assert (await run()).fetched == 1


@pytest.mark.parametrize("content", [b"# Start\n\nWelcomE.\n", b"# Start", b"# Start\n" * 1000])
async def test_wrong_content_is_reported_and_not_kept(run: Any, mirror: Mirror, pages: Path, content: bytes) -> None:
    mirror.contents[ENGLISH] = content
    (pages / ENGLISH).parent.mkdir(parents=True)
    (pages / ENGLISH).write_text("an older version")
    report = await run()
    assert [problem.path for problem in report.failed] == [f"{NAME}/{ENGLISH}"] and report.fetched == ALL - 1
    assert "SHA-256" in report.failed[0].reason or "bytes" in report.failed[0].reason
    assert mirror.asked.count(ENGLISH) == 4  # once, and three retries
    assert files_below(pages) == CONTENTS | {ENGLISH: b"an older version"}
    assert ENGLISH not in (pages.parent / "SOURCES.tsv").read_text(encoding="utf8")


@pytest.mark.parametrize("fault", ["503", "500", "429 0.01", "drop", "truncate"])
async def test_passing_faults_are_retried(run: Any, mirror: Mirror, pages: Path, fault: str) -> None:
    mirror.script = {ENGLISH: [fault, fault, fault]}
    report = await run()
    assert (report.fetched, report.failed) == (ALL, [])
    assert files_below(pages) == CONTENTS


async def test_missing_file_is_reported_once(run: Any, mirror: Mirror) -> None:
    del mirror.contents[ENGLISH]
    report = await run()
    assert (report.fetched, mirror.asked.count(ENGLISH)) == (ALL - 1, 1)
    assert [(problem.path, "404" in problem.reason) for problem in report.failed] == [(f"{NAME}/{ENGLISH}", True)]


@pytest.mark.parametrize("answer", ["302", "403", "429 3600"])
async def test_refusals_are_not_waited_for(run: Any, mirror: Mirror, answer: str) -> None:
    mirror.script = {ENGLISH: [answer]}
    report = await run()
    assert [answer.split()[0] in problem.reason for problem in report.failed] == [True]
    assert mirror.asked.count(ENGLISH) == 1 and "/elsewhere" not in mirror.asked


async def test_silence_is_a_timeout(run: Any, mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", aiohttp.ClientTimeout(total=1))
    monkeypatch.setattr(module, "RETRIES", 0)
    mirror.script = {ENGLISH: ["silence"]}
    report = await run()
    assert [problem.reason for problem in report.failed] == ["the server took too long"]


async def test_offline_is_said_once(run: Any, mirror: Mirror, free_port: int, pages: Path) -> None:
    mirror.script = {ENGLISH: ["truncate"] * 4}
    await run()
    with pytest.raises(UnreachableError, match=r"127\.0\.0\.1 cannot be reached") as raised:
        await run(base_url=f"http://127.0.0.1:{free_port}")
    for words in ("Nothing is lost", "run it again", "shipped corpus"):
        assert words in raised.value.action
    assert len(files_below(pages)) == ALL - 1


async def test_gives_up_where_every_file_fails(run: Any, mirror: Mirror, listing: Path) -> None:
    write_list(listing, {f"page-{number}.md": b"text" for number in range(200)})
    with pytest.raises(UnreachableError, match="HTTP 404"):
        await run()
    assert len(mirror.asked) <= module.FAILURES_IN_A_ROW + module.AT_ONCE


async def test_a_repository_that_has_gone_does_not_stop_the_rest(run: Any, mirror: Mirror, listing: Path) -> None:
    write_list(listing, CONTENTS | {f"zz/page-{number}.md": b"text" for number in range(100)})
    report = await run()
    assert (report.fetched, len(report.failed)) == (ALL, 100)


@pytest.mark.parametrize(
    "line",
    [
        f"{NAME}\t../../escaped.md\t4\t{'0' * 64}",
        f"{NAME}\t/etc/escaped.md\t4\t{'0' * 64}",
        f"{NAME}\ta\\..\\..\\escaped.md\t4\t{'0' * 64}",
        f"{NAME}\tC:escaped.md\t4\t{'0' * 64}",
        f"unknown\tescaped.md\t4\t{'0' * 64}",
        f"{NAME}\tescaped.md\t-4\t{'0' * 64}",
        f"{NAME}\tescaped.md\t4\tabc",
        "escaped.md",
    ],
)
async def test_broken_list_is_refused(run: Any, mirror: Mirror, listing: Path, pages: Path, line: str) -> None:
    with (listing / "checksums.tsv").open("a", encoding="utf8") as file:
        file.write(line + "\n")
    with pytest.raises(CorpusError, match=f"line {ALL + 1}"):
        await run()
    assert not mirror.asked and not files_below(pages)


async def test_nothing_is_written_through_a_link(run: Any, pages: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (pages / "nothing").mkdir(parents=True)
    (pages / "src").symlink_to(outside)
    (pages / "README.md").symlink_to(outside / "README.md")
    report = await run()
    assert [problem.path for problem in report.failed] == [
        f"{NAME}/{path}" for path in ("README.md", PARTIAL, ENGLISH, FRENCH)
    ]
    assert {problem.reason for problem in report.failed} == {"a symbolic link stands in the way"}
    assert not list(outside.iterdir())


@pytest.mark.parametrize(
    "address", ["http://example.org", "http://127.0.0.1.example.org", "file:///etc", "//x", "https://"]
)
async def test_only_https_or_this_machine(run: Any, address: str) -> None:
    with pytest.raises(SettingsError, match="https://"):
        await run(base_url=address)


async def test_full_disk_ends_the_run(run: Any, monkeypatch: pytest.MonkeyPatch, pages: Path) -> None:
    write = module.write_whole

    def full(folder: Path, place: str, data: bytes) -> None:
        if place.endswith(".mdx"):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, place, data)

    monkeypatch.setattr(module, "write_whole", full)
    with pytest.raises(CorpusError, match="is full") as raised:
        await run()
    assert "Make room" in raised.value.action
    assert set(files_below(pages)) <= {"LICENSE", "README.md"}


async def test_folder_that_cannot_be_written_is_named(run: Any, mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CorpusError, match="Nothing can be written to"):
        await run(folder=tmp_path / "file" / "pages")
    assert not mirror.asked


async def test_only_some_sources(run: Any) -> None:
    assert (await run(only=[NAME])).fetched == ALL
    with pytest.raises(CorpusError, match=r"no source nothing-such\.") as raised:
        await run(only=["nothing-such"])
    assert NAME in raised.value.action


async def test_ignores_the_proxy_for_this_machine(run: Any, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port}")
    assert (await run()).fetched == ALL


def test_runs_from_plain_code(mirror: Mirror, listing: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    "The default folder lies in the data folder."
    monkeypatch.setenv("DOCSTRAL_DATA_DIR", str(tmp_path / "data"))
    report = sync_now(base_url=mirror.address, corpus=listing)
    assert report.fetched == ALL and report.folder == tmp_path / "data" / "corpus"
    assert len(list(find_files(report.folder))) == ALL - 1  # all but the licence


def test_shipped_list_is_whole_and_sorted() -> None:
    files = listed_files()
    places = [file.place for file in files]
    assert len(files) > 1000 and places == sorted(set(places))
    assert len({place.lower() for place in places}) == len(places)  # some systems tell no case apart
    licences = {file.source for file in files if file.path in ("LICENSE", "LICENCE")}
    assert licences == {file.source for file in files}
    assert all(file.path.endswith((".md", ".mdx", "LICENSE", "LICENCE")) for file in files)
    first = next(file for file in files if file.source == NAME)
    assert first.address(module.GITHUB).startswith(f"https://raw.githubusercontent.com/mistralai/{NAME}/{COMMIT}/")
    assert (shipped_corpus() / "checksums.tsv").stat().st_size < 250_000
