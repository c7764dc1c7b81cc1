"""What citations cost, in CPU time a token: reading the stream, and checking the finished answer.

    python benchmarks/citations.py [--rounds 9]

A token is what a model sends at a time: a short word with the space before it. The ratio is to a bare loop that joins
the same tokens. The check is made once, at the end of an answer, and divided by the answer's tokens.
"""

import argparse
import re
import time
from collections.abc import Callable

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


def cpu(work: Callable[[], object], rounds: int) -> float:
    "The least CPU seconds of some rounds of work."
    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        work()
        seconds.append(time.process_time() - began)
    return min(seconds)


def main() -> None:
    "Print microseconds a token for answers of two lengths."
    parser = argparse.ArgumentParser(description="The cost of citations, in CPU time a token.")
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    passages = [Passage(f"p{number}.md::0", "Streaming", "", "", f"{number}. {PAGE}", 1.0) for number in range(6)]
    for times in (1, 3):
        sent = tokens(TEXT * times)

        def read(sent: list[str] = sent) -> tuple[CitationReader, str]:
            reader = CitationReader(len(passages))
            return reader, "".join(map(reader.feed, sent)) + reader.close()

        reader, shown = read()
        count = len(sent)
        bare = cpu(lambda sent=sent: "".join(piece for piece in sent), rounds) / count * 1e6  # type: ignore[misc]
        reading = cpu(read, rounds) / count * 1e6

        def verify(shown: str = shown, reader: CitationReader = reader) -> None:
            _evidence.cache_clear()  # as for passages that no answer has cited before
            check(shown, passages, reader.order, reader.marks)

        checking = cpu(verify, rounds) / count * 1e6
        print(
            f"{count} tokens, {len(reader.marks)} citations: reading {reading:.2f} us a token, checking {checking:.2f},"
            f" together {reading + checking:.2f}; a bare loop {bare:.3f} ({(reading + checking) / bare:.0f} times)"
        )


if __name__ == "__main__":
    main()
