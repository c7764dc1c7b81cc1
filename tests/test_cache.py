"Embeddings: none is computed twice, and a server that limits or fails is borne with."

import pytest
from mistral_server import ScriptedMistral, refusal

from docstral.cache import EmbeddingCache, batches, digest_of
from docstral.embed import MistralEmbedder
from docstral.errors import KeyRejectedError, RateLimitedError
from docstral.settings import Settings
from docstral.store import Store


@pytest.fixture
def cache(store: Store, settings: Settings) -> EmbeddingCache:
    return EmbeddingCache(store, MistralEmbedder(settings.but(mistral_api_key="k")))


def test_a_question_is_sent_once(cache: EmbeddingCache, mistral: ScriptedMistral) -> None:
    first, second = cache.embed(["How do I stream?"]), cache.embed(["How do I stream?"])
    assert (first == second).all() and len(mistral.embeddings) == 1
    assert (cache.hits, cache.misses) == (1, 1)


def test_vectors_outlive_the_process(cache: EmbeddingCache, mistral: ScriptedMistral) -> None:
    cache.embed(["kept"])
    EmbeddingCache(cache.store, cache.embedder).embed(["kept"])
    assert len(mistral.embeddings) == 1


def test_texts_keep_their_order_and_doubles_are_sent_once(cache: EmbeddingCache, mistral: ScriptedMistral) -> None:
    texts = [f"text {number % 100}" for number in range(150)]
    vectors = cache.embed(texts)
    assert (vectors[:50] == vectors[100:]).all() and not (vectors[0] == vectors[1]).all()
    assert sum(len(seen.body["input"]) for seen in mistral.embeddings) == 100
    assert max(len(seen.body["input"]) for seen in mistral.embeddings) <= 64


def test_a_rate_limit_is_waited_for(cache: EmbeddingCache, mistral: ScriptedMistral) -> None:
    mistral.script_embeddings(refusal(429, "slow down", **{"retry-after": "0"}))
    assert cache.fill({digest_of("patience"): "patience"}) == 1 and len(mistral.embeddings) == 2


def test_a_question_does_not_wait_for_a_rate_limit(cache: EmbeddingCache, mistral: ScriptedMistral) -> None:
    mistral.script_embeddings(refusal(429, "slow down", **{"retry-after": "0"}))
    with pytest.raises(RateLimitedError):
        cache.embed(["impatience"])
    assert len(mistral.embeddings) == 1


def test_a_wait_that_is_too_long_is_not_waited_for(cache: EmbeddingCache, mistral: ScriptedMistral) -> None:
    mistral.script_embeddings(refusal(429, "tomorrow", **{"retry-after": "86400"}))
    with pytest.raises(RateLimitedError):
        cache.fill({digest_of("patience"): "patience"})
    assert len(mistral.embeddings) == 1


def test_what_a_wait_cannot_mend_is_raised_at_once(cache: EmbeddingCache, mistral: ScriptedMistral) -> None:
    mistral.script_embeddings(refusal(401, "bad key"))
    with pytest.raises(KeyRejectedError):
        cache.embed(["key"])
    assert len(mistral.embeddings) == 1


def test_a_text_longer_than_a_batch_goes_alone() -> None:
    found = list(batches({"a": "x" * 50_000, "b": "y", "c": "z"}, most=64))
    assert [list(batch) for batch in found] == [["a"], ["b", "c"]]
