"Every refusal of a provider becomes one error that says what to do, and no key ever stands in it."

from datetime import UTC, datetime

import orjson
import pytest

from docstral.errors import ProviderError
from docstral.upstream import LONGEST_WAIT, SHORTEST_KEY, Without, error_for, said, seconds_to_wait

BODIES = {
    b'{"message": "Too  many\\nrequests"}': "Too many requests",
    b'{"object": "error", "message": {"detail": "Nested"}}': "Nested",
    b'{"detail": "Unauthorized"}': "Unauthorized",
    b'{"detail": [{"loc": ["body", "temperature"], "msg": "too high"}]}': "body.temperature: too high",
    b'{"error": {"message": "Model gone", "type": "x"}}': "Model gone",
    b'{"error": "plain"}': "plain",
    b"": "",
    b"<html><body>502</body></html>": "",
    b"[]": "",
    b'"text"': "",
    b"null": "",
    b'{"message": null}': "",
    b'{"message": ""}': "",
    b'{"detail": []}': "",
    b'{"detail": [1, "x"]}': "",
    b'{"detail": [{"loc": 5, "msg": "odd"}]}': ": odd",
    b'{"error": ' * 1_000 + b"1" + b"}" * 1_000: "",
    b"\xff\xfe": "",
    b'{"message": "cut off': "",
}


@pytest.mark.parametrize("body", BODIES, ids=lambda body: ascii(body[:60]))
def test_the_words_of_a_reply_are_found_in_every_shape(body: bytes) -> None:
    assert said(body) == BODIES[body]


def test_a_detail_without_a_place_breaks_nothing() -> None:
    assert "odd" in said(b'{"detail": [{"loc": null, "msg": "odd"}]}')


def test_long_words_are_cut() -> None:
    assert len(said(orjson.dumps({"message": "x" * 5000}))) == 300


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("inf", None),
        ("nan", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 90.0),
        ("Wed, 21 Oct 2020 07:28:00 GMT", 0.0),
        ("Wed, 99 Oct 2026 07:28:00 GMT", None),
        ("31536000", LONGEST_WAIT),
        ("1e308", LONGEST_WAIT),
        ("Fri, 31 Dec 2027 23:59:59 GMT", LONGEST_WAIT),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 -0000", None),
        ("Mon, 01 Jan 2027 00:00:00 +99999999999999999999", None),
    ],
)
def test_retry_after_is_a_number_a_date_or_unknown(value: str, seconds: float | None) -> None:
    now = datetime(2026, 10, 21, 7, 26, 30, tzinfo=UTC).timestamp()
    assert seconds_to_wait({"retry-after": value}, now) == seconds


@pytest.mark.parametrize(
    ("status", "message", "headers", "code", "retryable"),
    [
        (401, "Unauthorized", {}, "bad_key", False),
        (429, "Slow down", {"retry-after": "3"}, "rate_limited", True),
        (429, "No quota", {"x-ratelimit-limit-req-minute": "0"}, "no_quota", False),
        (429, "Slow down", {"x-ratelimit-limit-req-minute": "60"}, "rate_limited", True),
        (400, "Invalid model: nope", {}, "unknown_model", False),
        (404, "Not found", {}, "not_an_api", False),
        (404, "Model not found", {}, "unknown_model", False),
        (400, "Context too long", {}, "too_long", False),
        (400, "Prompt contains 40000 tokens, too large for model with 32768 maximum context", {}, "too_long", False),
        (400, "the request exceeds the available context size", {}, "too_long", False),
        (404, 'model "qwen" not found, try pulling it first', {}, "unknown_model", False),
        (410, "The model x was retired on 2026-06-01", {}, "unknown_model", False),
        (402, "Payment required", {}, "payment", False),
        (403, "Forbidden", {}, "forbidden", False),
        (407, "", {}, "not_an_api", False),
        (408, "", {}, "timeout", True),
        (422, "bad temperature", {}, "refused_request", False),
        (413, "", {}, "too_long", False),
        (500, "", {}, "upstream_error", True),
        (502, "", {}, "upstream_error", True),
        (503, "Overloaded", {"retry-after": "2"}, "overloaded", True),
        (529, "", {}, "overloaded", True),
        (504, "", {}, "timeout", True),
    ],
)
def test_a_status_becomes_an_error(
    status: int, message: str, headers: dict[str, str], code: str, retryable: bool
) -> None:
    error = error_for(status, orjson.dumps({"message": message}), headers, "mistral-x")
    assert isinstance(error, ProviderError)
    assert (error.code, error.retryable) == (code, retryable)
    assert error.action and message in str(error)
    assert error.retry_after == (float(headers["retry-after"]) if "retry-after" in headers else None)
    if code == "unknown_model":
        assert "mistral-x" in str(error)


def test_a_page_where_the_api_should_be_is_told_from_a_refusal() -> None:
    page = {"content-type": "text/html; charset=utf-8"}
    error = error_for(403, b"<html>Log in to the proxy</html>", page, setting="DOCSTRAL_OPENAI_URL")
    assert error.code == "not_an_api" and "DOCSTRAL_OPENAI_URL" in error.action
    assert error_for(502, b"<html>Bad gateway</html>", page).code == "upstream_error"


def test_the_field_that_is_wrong_is_named() -> None:
    body = orjson.dumps({"detail": [{"loc": ["body", "max_tokens"], "msg": "should be at least 1"}]})
    error = error_for(422, body, {})
    assert error.code == "refused_request" and "max_tokens: should be at least 1" in str(error)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500])
def test_a_key_that_the_server_repeats_is_taken_out(status: int) -> None:
    body = orjson.dumps({"message": "Invalid key sk-123456 for sk-123456"})
    assert "sk-123456" not in str(error_for(status, body, {}, "m", "sk-123456"))


def test_a_key_that_is_cut_off_at_the_end_is_taken_out_as_well() -> None:
    body = orjson.dumps({"message": "x" * 295 + "sk-123456"})
    assert "sk-12" not in str(error_for(400, body, {}, "m", "sk-123456"))


@pytest.mark.parametrize("secret", ["sk-0123456789", "aaaaaaaab", "abababababc", "********", "short", ""])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 100])
def test_a_secret_is_taken_out_wherever_a_text_is_cut_and_nothing_else_is(secret: str, size: int) -> None:
    text = f"a{secret}ab, {secret[:4]}, {secret}{secret} or {secret[1:]}; {secret[:3]}"
    clean = Without(secret)
    told = "".join(clean.feed(text[start : start + size]) for start in range(0, len(text), size)) + clean.rest()
    assert told == (text.replace(secret, "***") if len(secret) >= SHORTEST_KEY else text)


def test_most_of_a_secret_at_the_end_is_taken_out_too() -> None:
    clean = Without("sk-0123456789")
    assert clean.feed("cut off in sk-012345") + clean.rest() == "cut off in ***"
