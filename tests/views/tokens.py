"""Tokens as Google makes them, by keys that are made here, and a site on Cloud Tasks that believes these."""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from soc_tasks.engine.clock import SECOND
from soc_tasks.views import cloud, oidc

URL = "https://site.example"
ACCOUNT = "queue@project.iam.gserviceaccount.com"
CRON = "cron@project.iam.gserviceaccount.com"
HTTP = {"BACKEND": "cloud_tasks", "TARGET": "http", "URL": URL, "SERVICE_ACCOUNT": ACCOUNT}
QUEUE = {"X-CloudTasks-QueueName": "default", "X-CloudTasks-TaskName": "made"}


@lru_cache
def make_key(kid):
    """Return a private key and its certificate; the same for one kid, made once in a run."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, kid)])
    begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin)
        .not_valid_after(begin + datetime.timedelta(days=36500))
        .sign(key, hashes.SHA256())
    )
    return key, certificate.public_bytes(serialization.Encoding.PEM).decode()


def encode(part):
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header, claims, key="k1"):
    """Return a token; `key` names who signs it, None nobody."""
    message = f"{encode(header)}.{encode(claims)}"
    if key is None:
        return f"{message}."
    if header.get("alg") == "HS256":
        # As those do it who take the public key for a shared secret (CVE-2022-29217 and its like).
        return f"{message}.{encode(hmac.digest(make_key(key)[1].encode(), message.encode(), hashlib.sha256))}"
    return f"{message}.{encode(make_key(key)[0].sign(message.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


class Issuer:
    """Stands for Google: makes tokens, and gives its keys out."""

    def __init__(self, clock):
        self.clock = clock
        self.kids = ["k1"]
        self.fetched = 0
        self.keep = 20000.0
        self.down = False

    def fetch(self):
        self.fetched += 1
        if self.down:
            raise OSError("nobody answers")
        return {kid: make_key(kid)[1] for kid in self.kids}, self.keep

    def header(self, **more):
        return {"alg": "RS256", "typ": "JWT", "kid": "k1", **more}

    def claims(self, **more):
        now = self.clock.now() // SECOND
        claims = {
            "iss": "https://accounts.google.com",
            "aud": URL,
            "azp": "1234",
            "sub": "1234",
            "email": ACCOUNT,
            "email_verified": True,
            "iat": now,
            "exp": now + 3600,
        }
        return {name: value for name, value in {**claims, **more}.items() if value is not ...}

    def token(self, **claims):
        return sign(self.header(), self.claims(**claims))


def trust(monkeypatch, issuer):
    """Have the site judge tokens by the issuer's keys and clock, and return its keys."""
    keys = oidc.Keys(issuer.fetch, issuer.clock.monotonic)
    monkeypatch.setattr(cloud, "clock", issuer.clock)
    monkeypatch.setattr(cloud, "get_keys", lambda url: keys)
    return keys


def bearer(token, headers=QUEUE):
    return {"Authorization": f"Bearer {token}", **headers}
