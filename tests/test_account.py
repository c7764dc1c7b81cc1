"An account tells how an answer came about: for a quoted answer, a refused one, and one that failed."

import pytest
from mistral_server import ScriptedMistral, refusal

from docstral.account import account_text, bars, explain_answer
from docstral.chat import ChatService, Question
from docstral.errors import QuestionError
from docstral.library import DocStral
from docstral.settings import Settings
from docstral.store import get_message


async def account_of(service: ChatService, text: str) -> dict:  # type: ignore[type-arg]
    "The account of an answer."
    events = [each async for each in service.ask("ada", Question(text))]
    return explain_answer(get_message(service.store, "ada", events[0].message_id))


async def test_a_quoted_answer_has_a_search_and_a_prompt_but_no_attempt(service: ChatService) -> None:
    account = await account_of(service, "How do I stream a chat completion?")
    assert account["attempts"] == [] and account["prompt"][-1]["content"].startswith("How do I stream")
    assert account["search"]["candidates"] and account["stages"][0]["name"] == "search: words"
    starts = [stage["start"] for stage in account["stages"]]
    assert starts == sorted(starts) and len(bars(account)) == len(starts)
    assert "[1] " in account_text(account) and "confidence" in account_text(account)


async def test_a_refused_question_says_that_nothing_was_sent(with_key: ChatService, mistral: ScriptedMistral) -> None:
    account = await account_of(with_key, "Who won the football match in Paris yesterday?")
    assert not mistral.chats and account["prompt"] == [] and not account["search"]["answers"]


async def test_an_answer_that_failed_can_be_explained(with_key: ChatService, mistral: ScriptedMistral) -> None:
    mistral.script(*[refusal(400, "Bad request")] * 3)
    account = await account_of(with_key, "How do I stream a chat completion?")
    assert account["attempts"] and account["prompt"] == mistral.chats[-1].body["messages"]


def test_it_is_the_same_in_python(settings: Settings) -> None:
    with DocStral(settings) as docs:
        answer = docs.ask("How do I stream a chat completion?")
        account = docs.explain_answer(answer.message_id)
        code = docs.reproduce(answer.message_id, "curl", "docstral")
    assert account["question"]["message"] == "How do I stream a chat completion?"
    assert code.startswith("printf '%s' ") and "/chat" in code


async def test_an_answer_of_a_fallback_is_not_reproduced_as_the_request_that_failed(
    settings: Settings, mistral: ScriptedMistral
) -> None:
    mistral.script(*[refusal(503, "Overloaded")] * 9)
    with DocStral(settings.but(mistral_api_key="k", fallback=("extractive",))) as docs:
        answer = docs.ask("How do I stream a chat completion?", provider="mistral")
        account = docs.explain_answer(answer.message_id)
        with pytest.raises(QuestionError, match="extractive wrote it here"):
            docs.reproduce(answer.message_id)
    assert answer.receipt.fallbacks == ["mistral"] and account["notices"]
    assert [each["provider"] for each in account["attempts"]] == ["mistral"] * len(mistral.chats)
