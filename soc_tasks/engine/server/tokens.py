"""OIDC tokens: signed by a key of this server, with the claims of Google's, and what others need to verify them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from soc_tasks.errors import ConfigurationError

#: Seconds for which a token is valid (recorded of Google's), and for which one is sent again, ours.
VALID: Final = 3600
REUSED: Final = 300
#: Tokens that are kept to be sent again.
KEPT: Final = 256
_FROM, _FOR = datetime(2020, 1, 1, tzinfo=UTC), timedelta(days=365 * 100)


class Tokens:
    """Signs tokens.

    Args:
        issuer: who they say they come from.
        path: the file of the key, PEM; made if it is not there. None: a key for this run only.

    Raises:
        ConfigurationError: the file holds no RSA key.
    """

    def __init__(self, issuer: str, path: str | None = None) -> None:
        from cryptography.hazmat.primitives.asymmetric import rsa

        self.issuer = issuer
        self._key: Any = _load(path) if path is not None else rsa.generate_private_key(65537, 2048)
        self._lock = threading.Lock()
        self._made: dict[tuple[str, str], tuple[float, str]] = {}
        numbers = self._key.public_key().public_numbers()
        self._modulus = _encode(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8, "big"))
        self._exponent = _encode(numbers.e.to_bytes(3, "big"))
        #: The key's id: the same as long as the key is.
        self.kid = hashlib.sha256(self._modulus.encode()).hexdigest()[:40]
        self._certificate = self._certify()

    def certificates(self) -> dict[str, str]:
        """Return the certificate of the key by its id, as Google publishes its own."""
        return {self.kid: self._certificate}

    def key_set(self) -> dict[str, Any]:
        """Return the key as a JSON Web Key Set."""
        key = {"kty": "RSA", "alg": "RS256", "use": "sig", "kid": self.kid, "n": self._modulus, "e": self._exponent}
        return {"keys": [key]}

    def make(self, email: str, audience: str) -> str:
        """Return a token for an account and an audience."""
        now = time.time()
        with self._lock:
            made, token = self._made.get((email, audience), (0.0, ""))
            if now - made < REUSED and now >= made:
                return token
            token = self._sign(email, audience, int(now))
            while len(self._made) >= KEPT:
                del self._made[next(iter(self._made))]
            self._made.pop((email, audience), None)
            self._made[email, audience] = (now, token)
        return token

    def _sign(self, email: str, audience: str, now: int) -> str:
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import padding

        # An account's number, which nobody here knows: always the same one for an e-mail.
        number = str(int.from_bytes(hashlib.sha256(email.encode()).digest()[:9], "big")).zfill(21)[:21]
        claims = {
            "aud": audience,
            "azp": number,
            "email": email,
            "email_verified": True,
            "exp": now + VALID,
            "iat": now,
            "iss": self.issuer,
            "sub": number,
        }
        header = {"alg": "RS256", "kid": self.kid, "typ": "JWT"}
        signed = ".".join(_encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
        return f"{signed}.{_encode(self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"

    def _certify(self) -> str:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "soc_tasks")])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(_FROM)
            .not_valid_after(_FROM + _FOR)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _load(path: str) -> Any:
    """Return the key of a file, made first if there is none: for its owner's eyes only."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    file = Path(path)
    if not file.exists():
        pem = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(pem)
    try:
        key = serialization.load_pem_private_key(file.read_bytes(), None)
    except (ValueError, TypeError, OSError) as error:
        raise ConfigurationError(f"{path} holds no RSA key in PEM, without a password: {error}") from error
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ConfigurationError(f"The key in {path} is no RSA key.")
    return key


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
