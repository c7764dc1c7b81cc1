"A follow-up is searched for with what it goes on from: by words, or rewritten by a model where that is wanted."

import asyncio
from collections.abc import AsyncIterator

import pytest
from mistral_server import Reply, ScriptedMistral, refusal

from docstral.chat import ChatService, Question
from docstral.followups import FURTHEST, search_text, stands_alone
from docstral.prompt import recent
from docstral.question import LONGEST_QUESTION
from docstral.settings import Settings
from docstral.store import Store
from docstral.types import ChatStarted, Done, Message, Sources

EARLIER = [Message(role="user", content="What does HTTP 429 mean?"), Message(role="assistant", content="Slow down.")]


@pytest.fixture
async def rewriting(settings: Settings, store: Store, mistral: ScriptedMistral) -> AsyncIterator[ChatService]:
    "A chat service whose model rewrites follow-ups."
    made = ChatService(settings.but(mistral_api_key="settings-key", follow_ups="model"), store)
    made.load()
    yield made
    await made.close()


async def ask(service: ChatService, text: str) -> tuple[Sources, Done]:
    "The sources and the end of an answer that follows the question about 429."
    async with asyncio.timeout(30):
        events = [event async for event in service.ask("ada", Question(text, history=EARLIER))]
    assert isinstance(events[0], ChatStarted) and isinstance(events[1], Sources) and isinstance(events[-1], Done)
    return events[1], events[-1]


@pytest.mark.parametrize("question", ["And in French?", "Why?", "what about batches of many files?", "et en Python ?"])
def test_a_question_that_says_little_is_searched_with_the_one_before(question: str) -> None:
    assert not stands_alone(question)
    assert search_text(question, EARLIER) == f"What does HTTP 429 mean?\n{question}"


def test_a_question_that_stands_alone_is_searched_alone() -> None:
    assert search_text("How do I stream a chat completion?", EARLIER) == "How do I stream a chat completion?"
    assert search_text("Why?", []) == "Why?"


@pytest.mark.parametrize("said", ["word " * 400_000, "And?", "?" * 3_999])
def test_no_more_is_searched_for_than_one_may_ask_however_much_was_said_before(said: str) -> None:
    history = [Message(role="user", content=said), Message(role="assistant", content="So.")] * 50
    text = search_text("Why?", history)
    assert text.endswith("\nWhy?") and len(text) <= LONGEST_QUESTION and text.count("\n") <= FURTHEST
    assert recent([Message(role="user", content=said), Message(role="assistant", content="x" * 10**6)]) == []


async def test_the_model_says_what_to_search_for_and_its_tokens_count(
    rewriting: ChatService, mistral: ScriptedMistral
) -> None:
    mistral.script(
        Reply(["How many dimensions does ", "a vector of mistral-embed have?"], usage=(60, 12)),
        Reply(["1,024 [1]."], usage=(120, 9)),
    )
    sources, done = await ask(rewriting, "And its vectors?")
    assert sources.sources[0].page == "embeddings.md"
    asked, answered = (seen.body["messages"] for seen in mistral.chats)
    assert [message["content"] for message in asked[1:]] == [
        "What does HTTP 429 mean?",
        "Slow down.",
        "The last question: And its vectors?",
    ]
    assert answered[-1]["content"].startswith("And its vectors?")  # the answer is to the reader's own words
    assert (done.receipt.tokens_in, done.receipt.tokens_out, done.receipt.attempts) == (180, 21, 2)


@pytest.mark.parametrize("reply", [refusal(500, "Not now"), Reply(["word " * 200]), Reply([" \n"])])
async def test_without_a_usable_rewriting_the_words_are_searched_for(
    rewriting: ChatService, mistral: ScriptedMistral, reply: Reply
) -> None:
    mistral.script(reply, Reply(["Slow down [1]."]))
    sources, done = await ask(rewriting, "And why?")
    assert sources.sources[0].page == "guides/errors.mdx"
    assert done.outcome == "cited"


async def test_no_model_is_asked_where_the_question_stands_alone_or_the_setting_says_words(
    rewriting: ChatService, with_key: ChatService, mistral: ScriptedMistral
) -> None:
    mistral.script(Reply(["So [1]."]), Reply(["So [1]."]))
    await ask(rewriting, "How do I stream a chat completion?")
    await ask(with_key, "And why?")
    assert len(mistral.chats) == 2
