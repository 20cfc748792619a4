"""Tokens of a provider: a real one on this machine hands out its keys and signs."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey
from sqlalchemy import select

from app.api.tokens import FLOOR_SECONDS, KEPT_SECONDS, Provider
from app.errors import Task2VecError, Unavailable
from app.store.tables import PUBLIC, AuditEvent
from tests.api.conftest import ARCHIVE, Service, assert_problem
from tests.issuer import AUDIENCE, Issuer, local_issuer, new_key


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with local_issuer() as issuer:
        yield issuer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider(issuer: Issuer, clock: Clock) -> Provider:
    return Provider(issuer.url, AUDIENCE, tenant_claim="tenant", scopes_claim="scope", clock=clock)


def refused(provider: Provider, token: str) -> str:
    with pytest.raises(Task2VecError) as caught:
        provider.read(token)
    return caught.value.code


def test_a_valid_token_tells_tenant_subject_scope_and_when_it_ends(
    issuer: Issuer, provider: Provider
) -> None:
    bearer = provider.read(issuer.token())
    assert (bearer.tenant, bearer.subject, bearer.scope) == ("acme", "ann", "write")
    assert 0 < bearer.until - time.time() <= 91


@pytest.mark.parametrize(
    ("claim", "scope"),
    [
        ("read", "read"),
        (["admin", "read"], "admin"),
        ("writer readonly", None),
        ("", None),
        (7, None),
        ({"admin": True}, None),
    ],
)
def test_the_widest_scope_that_is_named_counts(
    issuer: Issuer, provider: Provider, claim: Any, scope: str | None
) -> None:
    assert provider.read(issuer.token(scope=claim)).scope == scope


def test_claims_have_the_names_that_the_settings_say(issuer: Issuer) -> None:
    provider = Provider(issuer.url, AUDIENCE, tenant_claim="org", scopes_claim="roles")
    bearer = provider.read(issuer.token(org="other", roles=["admin"]))
    assert (bearer.tenant, bearer.scope) == ("other", "admin")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iss": "https://elsewhere.example"}, "token-invalid"),
        ({"aud": "another service"}, "token-invalid"),
        ({"aud": []}, "token-invalid"),
        ({"exp": 1}, "token-expired"),
        ({"exp": "tomorrow"}, "token-invalid"),
        ({"nbf": int(time.time()) + 3600}, "token-invalid"),
        *(({"without": name}, "token-invalid") for name in ("iss", "aud", "exp", "sub")),
        ({"without": "tenant"}, "token-without-tenant"),
        *(
            ({"tenant": name}, "token-without-tenant")
            for name in (PUBLIC, "", " ", 7, ["acme"], "a" * 101, "a\nb")
        ),
    ],
)
def test_a_token_whose_claims_do_not_do_is_refused(
    issuer: Issuer, provider: Provider, changes: dict[str, Any], code: str
) -> None:
    assert refused(provider, issuer.token(**changes)) == code


def test_several_audiences_may_be_named(issuer: Issuer, provider: Provider) -> None:
    assert provider.read(issuer.token(aud=["another", AUDIENCE])).tenant == "acme"


def test_a_token_that_somebody_else_signed_or_changed_is_refused(
    issuer: Issuer, provider: Provider
) -> None:
    forged = issuer.token(new_key("first"))  # named as the provider's
    head, claims, signature = issuer.token().split(".")
    other = issuer.token(tenant="other").split(".")[1]
    for token in (
        forged,
        f"{head}.{other}.{signature}",
        f"{head}.{claims}.",
        "t.o.k",
        "nothing",
        "",
    ):
        assert refused(provider, token) == "token-invalid"


def test_shared_secrets_and_no_signature_at_all_are_no_algorithms(
    issuer: Issuer, provider: Provider
) -> None:
    claims = issuer.token().split(".")[1]
    public_key_as_secret = issuer.keys[0].as_pem(private=False)

    def signed(algorithm: str) -> str:
        told = f"{base64_of(json.dumps({'alg': algorithm, 'kid': 'first'}).encode())}.{claims}"
        digest = hmac.digest(public_key_as_secret, told.encode(), "sha256")
        return f"{told}.{base64_of(digest) if algorithm == 'HS256' else ''}"

    for algorithm in ("HS256", "none"):
        assert refused(provider, signed(algorithm)) == "token-invalid"


def base64_of(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def test_keys_on_curves_are_taken_beside_others(issuer: Issuer, provider: Provider) -> None:
    issuer.keys.append(new_key("curve", ECKey))
    assert provider.read(issuer.token(issuer.keys[1], "ES256")).tenant == "acme"


def test_keys_are_asked_for_once_and_again_when_they_are_old(
    issuer: Issuer, provider: Provider, clock: Clock
) -> None:
    for _ in range(3):
        provider.read(issuer.token())
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
    clock.seconds += KEPT_SECONDS
    provider.read(issuer.token())
    assert len(issuer.asked) == 4


def test_a_key_that_the_provider_began_to_use_is_found_and_one_it_withdrew_forgotten(
    issuer: Issuer, provider: Provider, clock: Clock
) -> None:
    old = issuer.token()
    provider.read(old)
    issuer.keys = [new_key("second")]
    clock.seconds += FLOOR_SECONDS
    assert provider.read(issuer.token()).tenant == "acme"
    assert refused(provider, old) == "token-invalid"


def test_unknown_keys_make_the_provider_be_asked_at_most_so_often(
    issuer: Issuer, provider: Provider, clock: Clock
) -> None:
    provider.read(issuer.token())
    stranger = new_key("stranger")
    for _ in range(5):
        assert refused(provider, issuer.token(stranger)) == "token-invalid"
    assert len(issuer.asked) == 2
    clock.seconds += FLOOR_SECONDS
    with ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(lambda _: refused(provider, issuer.token(stranger)), range(8)))
    assert codes == ["token-invalid"] * 8
    assert len(issuer.asked) == 4


def test_without_the_provider_nobody_passes_by_keys_that_are_not_there_or_old(
    issuer: Issuer, provider: Provider, clock: Clock
) -> None:
    token = issuer.token()
    issuer.up = False
    for _ in range(3):
        with pytest.raises(Unavailable):
            provider.read(token)
    assert len(issuer.asked) == 1  # the others wait for the floor
    issuer.up = True
    clock.seconds += FLOOR_SECONDS
    provider.read(token)
    issuer.up = False
    provider.read(token)  # its keys are kept
    clock.seconds += KEPT_SECONDS
    with pytest.raises(Unavailable):
        provider.read(token)


def test_with_the_provider_away_an_unknown_key_is_no_reason_to_refuse_known_ones(
    issuer: Issuer, provider: Provider, clock: Clock
) -> None:
    provider.read(issuer.token())
    issuer.up = False
    clock.seconds += FLOOR_SECONDS
    with pytest.raises(Unavailable):  # it may be one of its: nobody can tell
        provider.read(issuer.token(new_key("second")))
    assert provider.read(issuer.token()).tenant == "acme"


@pytest.mark.parametrize(
    "changes",
    [{"issuer": "http://127.0.0.1:1"}, {"jwks_uri": "http://127.0.0.1:1/keys"}, {"jwks_uri": 7}],
)
def test_a_discovery_document_that_does_not_fit_lets_nobody_pass(
    issuer: Issuer, provider: Provider, changes: dict[str, Any]
) -> None:
    issuer.changes = changes
    with pytest.raises(Unavailable):
        provider.read(issuer.token())


def test_keys_of_an_encrypted_provider_do_not_come_in_the_clear(
    monkeypatch: pytest.MonkeyPatch, issuer: Issuer
) -> None:
    url = "https://provider.example"
    document = {"issuer": url, "jwks_uri": f"{issuer.url}/keys"}
    answers = httpx.MockTransport(lambda request: httpx.Response(200, json=document))
    client = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **_: client(transport=answers))
    with pytest.raises(Unavailable):
        Provider(url, AUDIENCE, tenant_claim="tenant", scopes_claim="scope").read(issuer.token())
    assert issuer.asked == []


# --- through the service


@pytest.fixture
def service(serve: Callable[..., Service], issuer: Issuer) -> Service:
    return serve(auth="required", oidc_issuer=issuer.url, oidc_audience=AUDIENCE)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_tokens_open_what_their_scopes_say_of_their_tenant(
    service: Service, issuer: Issuer
) -> None:
    files = {"archive": ("a.zip", ARCHIVE)}
    accepted = service.client.post("/v1/tasks", files=files, headers=bearer(issuer.token()))
    assert accepted.status_code == 202, accepted.text
    address = f"/v1/tasks/{accepted.json()['id']}"
    reader, stranger = issuer.token(scope="read"), issuer.token(tenant="other")
    assert service.client.get(address, headers=bearer(reader)).status_code == 200
    assert_problem(service.client.get(address, headers=bearer(stranger)), 404, "unknown-task")
    for token in (reader, issuer.token(scope="")):
        answer = service.client.delete(address, headers=bearer(token))
        assert_problem(answer, 403, "scope-missing")
    assert_problem(service.client.get("/v1/keys", headers=bearer(reader)), 403, "scope-missing")
    admin = bearer(issuer.token(scope="admin"))
    key = service.client.post("/v1/keys", json={"name": "ci"}, headers=admin).json()
    assert service.client.get(address, headers=bearer(key["secret"])).status_code == 200
    with service.resources.database.session(read_only=True) as session:
        rows = session.scalars(select(AuditEvent).order_by(AuditEvent.seq)).all()
    assert {(row.tenant, row.actor) for row in rows} == {("acme", "oidc:ann")}
    assert [row.status for row in rows] == [202, 403, 403, 403, 201]


def test_what_is_refused_says_so_and_keys_go_on_without_the_provider(
    service: Service, issuer: Issuer
) -> None:
    admin = bearer(issuer.token(scope="admin"))
    secret = service.client.post("/v1/keys", json={"name": "ci"}, headers=admin).json()["secret"]
    for token, status, code in (
        (issuer.token(exp=1), 401, "token-expired"),
        (issuer.token(aud="another"), 401, "token-invalid"),
        (issuer.token(without="tenant"), 403, "token-without-tenant"),
        ("t2v_unknown", 401, "key-unknown"),
    ):
        answer = service.client.get("/v1/tasks", headers=bearer(token))
        assert_problem(answer, status, code)
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert token not in answer.text
    issuer.up = False
    service.resources.provider._fetched = None
    service.resources.provider._asked = 0.0
    answer = service.client.get("/v1/tasks", headers=admin)
    assert_problem(answer, 503, "provider-unavailable")
    assert int(answer.headers["retry-after"]) == FLOOR_SECONDS
    assert service.client.get("/v1/tasks", headers=bearer(secret)).status_code == 200


def test_a_stream_ends_with_its_token(
    service: Service, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = bearer(issuer.token())
    files = {"archive": ("a.zip", ARCHIVE)}
    job = service.client.post("/v1/tasks", files=files, headers=headers).json()["job_id"]
    with service.client.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as stream:
        later = time.time() + 3600
        monkeypatch.setattr("app.api.auth.time.time", lambda: later)
        assert "succeeded" not in stream.read().decode()
