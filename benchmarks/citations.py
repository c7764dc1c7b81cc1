"""What citations cost, in CPU time a token: reading the stream, and checking the finished answer.

    python -m benchmarks.citations [--rounds 9]

A token is what a model sends at a time: a short word with the space before it. The ratio is to a bare loop that joins
the same tokens. The check is made once, at the end of an answer, and divided by the answer's tokens.
"""

import re
from collections.abc import Iterator

from benchmarks.bench import Table, alternate, main, ratios
from docstral.citations import CitationReader
from docstral.support import _evidence, check
from docstral.types import Passage

TEXT = """To stream a chat completion, set `stream` to `true` in the request [1]. The reply arrives as server-sent \
events, each of them a JSON object with a list of `choices` [2, 3].

- The stream ends with the line `data: [DONE]` [1].
- Status 429 means that the rate limit is reached; wait for the seconds in `Retry-After` [4][2].

```python
for chunk in client.chat.stream(model=model, messages=messages):
    print(chunk.data.choices[0].delta.content, end="")
```

The Python and TypeScript SDKs read it for you, so that the loop simply ends [5]. This is not known [9].

"""
PAGE = TEXT.replace("[1]", "").replace("[5]", "") * 2  # about 1,500 characters, as passages have


def tokens(text: str) -> list[str]:
    "A text in pieces of the size that a model sends."
    return re.findall(r"\s?\w{1,6}|\s|[^\w\s]", text)


def read(sent: list[str], passages: list[Passage]) -> tuple[CitationReader, str]:
    "An answer's tokens through the reader, and what readers see of them."
    reader = CitationReader(len(passages))
    return reader, "".join(map(reader.feed, sent)) + reader.close()


def costs(text: str, passages: list[Passage], rounds: int) -> Table:
    "The table for one answer."
    sent = tokens(text)
    reader, shown = read(sent, passages)

    def verify() -> None:
        _evidence.cache_clear()  # as for passages that no answer has cited before
        check(shown, passages, reader.order, reader.marks)

    works = {
        "a bare loop that joins": lambda: "".join(piece for piece in sent),
        "reading the stream": lambda: read(sent, passages),
        "checking the answer": verify,
    }
    found = {name: seconds / len(sent) * 1e6 for name, seconds in alternate(works, rounds).items()}
    found["both"] = found["reading the stream"] + found["checking the answer"]
    title = f"{len(sent)} tokens, {len(reader.marks)} citations"
    return ratios(title, "µs of CPU a token", found, "a bare loop that joins")


def measure(rounds: int) -> Iterator[Table]:
    "A short answer and one of three times its length."
    passages = [Passage(str(number), "Streaming", "", "", f"{number} {PAGE}", 1.0) for number in range(6)]
    for times in (1, 3):
        yield costs(TEXT * times, passages, rounds)


if __name__ == "__main__":
    main(__doc__, measure, rounds=(40, 10, 1))
