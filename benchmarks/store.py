"""What the store costs as it grows: the size of its file, writing a turn, reading chats, searching in them, opening it.

    python -m benchmarks.store [--messages 10000 100000 1000000] [--rounds 5]

A history is made in SQL: answers of 1,500 characters of the shipped corpus, each with six of its passages as sources
and a receipt; fifty chats of twenty messages go on at a time; each reader has 2,000 messages, all over the file. Then
turns are written and read as the app does it, and fifty new chats kept, which is what a second of a full server brings.
CPU milliseconds of this process, the least of the rounds; the bare work is the same rows through DuckDB and nothing
else, on the same file: inserts in one transaction, plain selects. Of the file, bare is the text of messages and sources
alone.
"""

import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks.bench import ROOT, Cell, Table, alternate, cpu, main
from docstral.chats import search_chats
from docstral.corpus import read_folders, shipped_corpus, split_page
from docstral.engines.duckdb import connect
from docstral.receipt import Meter
from docstral.store import Store, Turn, get_message, list_chats, list_messages, save_turn
from docstral.types import Citation, Passage, Receipt

READER = 2_000  # messages of one reader
MANY = 50  # answers that end within a second
WORD = "embeddings"
FILL = """
INSERT INTO messages (id, chat_id, turn, role, content, created, outcome, sources, citations, receipt)
SELECT id || part, chat, id, role, CASE role WHEN 'user' THEN 'How do I ' || substr(text, 1, 50) ELSE text END,
    moment, CASE role WHEN 'assistant' THEN 'cited' END, CASE role WHEN 'assistant' THEN sources END,
    CASE role WHEN 'assistant' THEN $citations END, CASE role WHEN 'assistant' THEN $receipt END
FROM (SELECT
        'msg_' || printf('%024x', range) AS id, 'chat_' || printf('%024x', range // 500 * 50 + range % 50) AS chat,
        substr($pool, 1 + (hash(range) % $longest)::BIGINT, 1500) AS text,
        now() - to_seconds($turns - range) AS moment,
        '[' || array_to_string([$passages[1 + (hash(range, slot) % len($passages))::BIGINT]
            for slot in [1, 2, 3, 4, 5, 6]], ',') || ']' AS sources
    FROM range($turns)) AS turns, (VALUES ('q', 'user'), ('', 'assistant')) AS roles(part, role)
"""
CHATS = """
INSERT INTO chats SELECT chat_id, 'user_' || (hash(chat_id) % greatest(1, $readers)), first(substr(content, 1, 50)),
    min(created), max(created), NULL FROM messages GROUP BY chat_id
"""


def receipt() -> Receipt:
    "The receipt of some answer."
    meter = Meter("mistral", "mistral-small-latest")
    meter.ask()
    meter.text()
    return meter.receipt([], "text", [], [Citation(1, "a", 0, 5, 1.0)])


def passages() -> list[Passage]:
    "Every passage of the shipped corpus."
    pages, _ = read_folders([shipped_corpus()])
    return [
        Passage(chunk.id, page.title, chunk.section, page.url, chunk.text, 0.5, page.language, page.licence, chunk.path)
        for page in pages
        for chunk in split_page(page)
    ]


def fill(place: Path, messages: int, known: Sequence[Passage]) -> None:
    "Write a history of so many messages into a new file."
    Store(place).close()
    pool = "\n".join(passage.text for passage in known)
    values = {
        "pool": pool,
        "longest": len(pool) - 1500,
        "turns": messages // 2,
        "passages": [orjson.dumps(asdict(passage)).decode() for passage in known],
        "citations": orjson.dumps([asdict(Citation(1, known[0].id, 0, 5, 1.0))]).decode(),
        "receipt": orjson.dumps(asdict(receipt())).decode(),
    }
    with connect(place) as connection:
        connection.execute(FILL, values)
        connection.execute(CHATS, {"readers": messages // READER})
        connection.execute("INSERT INTO users SELECT DISTINCT user_id, '' FROM chats")


def works(
    store: Store, bare: Any, known: Sequence[Passage]
) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    "What is measured: ours, and the same rows through DuckDB alone."
    [(user, chat)] = store.read("SELECT user_id, id FROM chats ORDER BY id DESC LIMIT 1")
    [(message, text)] = store.read(
        "SELECT id, content FROM messages WHERE chat_id = ? AND role != 'user' LIMIT 1", [chat]
    )
    bare.execute("CREATE OR REPLACE TABLE bare AS FROM messages LIMIT 0")
    told, stamp = receipt(), datetime.now(UTC)
    json = [orjson.dumps(part).decode() for part in ([asdict(each) for each in known[:6]], [], asdict(told))]

    def write() -> None:
        turn = Turn(user, chat, f"msg_{uuid.uuid4().hex}", "How?", text, "cited", told, "", known[:6], begins=False)
        store.write(partial(save_turn, turn=turn)).result()

    def keep() -> None:
        kept = [store.keep(Turn(user, uuid.uuid4().hex, f"msg_{uuid.uuid4().hex}", "How?", text, "cited", told, "How?",
                                known[:6])) for _ in range(MANY)]  # fmt: skip
        for each in kept:
            each.result()
        store.flush()

    def insert() -> None:
        bare.begin()
        for role in ("user", "assistant"):
            values = [uuid.uuid4().hex, chat, "turn", role, text, stamp, *json]
            bare.execute("INSERT INTO bare (id, chat_id, turn, role, content, created, sources, citations, receipt)"
                         " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", values)  # fmt: skip
        bare.commit()

    def select(query: str, *values: str) -> Callable[[], object]:
        return lambda: bare.execute(query, values).fetchall()

    own = "(SELECT id FROM chats WHERE user_id = ?)"
    return {
        "writing a turn": (write, insert),
        f"keeping {MANY} new chats": (keep, lambda: [insert() for _ in range(MANY)] and None),
        "listing chats": (lambda: list_chats(store, user), select("FROM chats WHERE user_id = ?", user)),
        "reading a chat": (lambda: list_messages(store, user, chat), select("FROM messages WHERE chat_id = ?", chat)),
        "reading an answer": (lambda: get_message(store, user, message), select("FROM messages WHERE id = ?", message)),
        "searching in chats": (lambda: search_chats(store, user, WORD), select(
            f"SELECT id, content FROM messages WHERE chat_id IN {own} AND contains(content, ?)", user, WORD)),
    }  # fmt: skip


def memory_after_use(place: Path) -> float:
    "Megabytes of a process of its own that has listed, read and searched once."
    use = f"""
import os
from pathlib import Path
from benchmarks.bench import memory_of
from benchmarks.store import WORD, list_chats, list_messages, search_chats, Store
with Store(Path({str(place)!r})) as store:
    for user, chat in store.read("SELECT user_id, id FROM chats LIMIT 1"):
        list_chats(store, user), list_messages(store, user, chat), search_chats(store, user, WORD)
    print(memory_of(os.getpid()))
"""
    return float(subprocess.run([sys.executable, "-c", use], cwd=ROOT, capture_output=True, check=True).stdout)


def grown(place: Path, messages: int, rounds: int, known: Sequence[Passage]) -> Table:
    "The figures of a history of so many messages."
    filling = cpu(lambda: fill(place, messages, known))
    size = place.stat().st_size
    with Store(place) as store, connect(place) as bare:
        texts = "SELECT sum(strlen(content) + coalesce(strlen(sources::VARCHAR), 0)) FROM messages"
        [(raw,)] = bare.execute(texts).fetchall()
        pairs = [(name, alternate({"ours": ours, "bare": same}, rounds))
                 for name, (ours, same) in works(store, bare, known).items()]  # fmt: skip
    opening = {"ours": lambda: Store(place).close(), "bare": lambda: connect(place).close()}
    pairs.append(("opening", alternate(opening, rounds)))
    rows: list[Sequence[Cell]] = [
        (f"{name}, ms", least["ours"] * 1000, least["bare"] * 1000, least["ours"] / least["bare"])
        for name, least in pairs
    ]
    rows.append(("file, bytes a message", size / messages, raw / messages, size / raw))
    held, empty = (memory_after_use(path) for path in (place, place.with_name("empty.duckdb")))
    rows.append(("memory after a look, MB", held, empty, held / empty))
    note = f"{size / 1e6:,.0f} MB on disk; filled in {filling:.0f} s of CPU. Bare memory: of an empty file."
    return Table(f"{messages:,} messages", ["", "DocStral", "bare", "ratio"], rows, note)


def measure(messages: list[int], rounds: int) -> Iterator[Table]:
    "A table for each size."
    known = passages()
    for count in messages:
        with tempfile.TemporaryDirectory() as folder:
            yield grown(Path(folder) / "docstral.duckdb", count, rounds, known)


if __name__ == "__main__":
    main(__doc__, measure, messages=([10_000, 100_000, 1_000_000], [10_000, 100_000], [2_000]), rounds=(5, 3, 1))
