"Every refusal of a provider becomes one error that says what to do, and no key ever stands in it."

import orjson
import pytest

from docstral.types import ProviderError
from docstral.upstream import error_for, said, seconds_to_wait

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
    b"\xff\xfe": "",
    b'{"message": "cut off': "",
}


@pytest.mark.parametrize("body", BODIES)
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
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after_is_a_number_or_unknown(value: str, seconds: float | None) -> None:
    assert seconds_to_wait({"retry-after": value}) == seconds


@pytest.mark.parametrize(
    ("status", "message", "headers", "code", "retryable"),
    [
        (401, "Unauthorized", {}, "bad_key", False),
        (429, "Slow down", {"retry-after": "3"}, "rate_limited", True),
        (429, "No quota", {"x-ratelimit-limit-req-minute": "0"}, "unknown_model", False),
        (429, "Slow down", {"x-ratelimit-limit-req-minute": "60"}, "rate_limited", True),
        (400, "Invalid model: nope", {}, "unknown_model", False),
        (404, "Not found", {}, "refused_request", False),
        (404, "Model not found", {}, "unknown_model", False),
        (400, "Context too long", {}, "refused_request", False),
        (422, "bad temperature", {}, "refused_request", False),
        (413, "", {}, "refused_request", False),
        (500, "", {}, "upstream_error", True),
        (502, "", {}, "upstream_error", True),
        (503, "Overloaded", {"retry-after": "2"}, "upstream_error", True),
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


def test_a_forbidden_request_is_about_the_key() -> None:
    assert error_for(403, b'{"message": "Forbidden"}', {}).code == "bad_key"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422, 429, 500])
def test_a_key_that_the_server_repeats_is_taken_out(status: int) -> None:
    body = orjson.dumps({"message": "Invalid key sk-123456 for sk-123456"})
    assert "sk-123456" not in str(error_for(status, body, {}, "m", "sk-123456"))


def test_a_key_that_is_cut_off_at_the_end_is_taken_out_as_well() -> None:
    body = orjson.dumps({"message": "x" * 295 + "sk-123456"})
    assert "sk-12" not in str(error_for(400, body, {}, "m", "sk-123456"))
