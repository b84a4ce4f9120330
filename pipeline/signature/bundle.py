"""``model.sig``: a Sigstore bundle (JSON) around a DSSE envelope around an in-toto statement.

Read strictly: unknown fields, other encodings of the same bytes and more than one signature are refused, so that no
byte of the file can be changed without notice. Sources: docs.sigstore.dev/about/bundle, secure-systems-lab/dsse v1.0.0.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Untrusted

SIGNATURE_FILE = "model.sig"
MAX_SIGNATURE_BYTES = 16 * 2**20  # 16 MiB hold the digests of 60,000 files
MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_CERTIFICATES = 8


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What a signature file says, believed by nobody yet.

    Attributes:
        payload: the bytes that were signed.
        key_hint: SHA-256 of the public key's PEM, when signed with a key.
        certificates: DER, the signer's first, when signed with a certificate.
        keyless: signed with a certificate of Sigstore's, which lived for minutes: whether it holds is for Sigstore's
            own client to say (`keyless`), and nothing of it is checked here.
    """

    payload: bytes
    signature: bytes
    key_hint: str = ""
    certificates: tuple[bytes, ...] = ()
    keyless: bool = False


def signed_bytes(payload: bytes) -> bytes:
    """What is really signed: DSSE's pre-authentication encoding, which binds the payload to its type."""
    return f"DSSEv1 {len(PAYLOAD_TYPE)} {PAYLOAD_TYPE} {len(payload)} ".encode() + payload


def encode_bundle(bundle: Bundle) -> bytes:
    """The bytes of ``model.sig``."""
    material: dict[str, Any] = {"tlogEntries": []}
    if bundle.certificates:
        chain = [{"rawBytes": _to_base64(certificate)} for certificate in bundle.certificates]
        material["x509CertificateChain"] = {"certificates": chain}
    else:
        material["publicKey"] = {"hint": bundle.key_hint}
    envelope = {
        "payload": _to_base64(bundle.payload),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [{"sig": _to_base64(bundle.signature), "keyid": ""}],
    }
    return json.dumps({"mediaType": MEDIA_TYPE, "verificationMaterial": material, "dsseEnvelope": envelope}).encode()


def parse_bundle(data: bytes) -> Bundle:
    """Read the bytes of ``model.sig``. Raises Untrusted when they are anything but one signature of a known kind."""
    if len(data) > MAX_SIGNATURE_BYTES:
        raise Untrusted(f"{SIGNATURE_FILE} has {len(data)} bytes, more than any signature.", "Do not use the package.")
    try:
        return _parse(json.loads(data))
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise Untrusted(
            f"{SIGNATURE_FILE} is not a model signature: {_brief(error)}.", "Pull the package again, or have it signed."
        ) from error


def _parse(data: Any) -> Bundle:
    _expect_keys(data, {"mediaType", "verificationMaterial", "dsseEnvelope"})
    if data["mediaType"] != MEDIA_TYPE:
        raise ValueError("its media type is not a Sigstore bundle v0.3")
    envelope = data["dsseEnvelope"]
    _expect_keys(envelope, {"payload", "payloadType", "signatures"})
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise ValueError("what was signed is not an in-toto statement")
    if not isinstance(envelope["signatures"], list) or len(envelope["signatures"]) != 1:
        raise ValueError("it does not hold exactly one signature")
    signature = envelope["signatures"][0]
    _expect_keys(signature, {"sig"}, {"keyid"})
    if signature.get("keyid", "") != "":
        raise ValueError("it names a key id, which model signatures leave empty")
    material = data["verificationMaterial"]
    keyless = isinstance(material, Mapping) and "certificate" in material
    hint, certificates = ("", (_logged_certificate(material),)) if keyless else _material(material)
    return Bundle(
        payload=_from_base64(envelope["payload"]),
        signature=_from_base64(signature["sig"]),
        key_hint=hint,
        certificates=certificates,
        keyless=keyless,
    )


def _logged_certificate(material: Mapping[str, Any]) -> bytes:
    """The certificate of a keyless signature."""
    _expect_keys(material, {"certificate", "tlogEntries"}, {"timestampVerificationData"})
    _expect_keys(material["certificate"], {"rawBytes"})
    return _from_base64(material["certificate"]["rawBytes"])


def _material(material: Any) -> tuple[str, tuple[bytes, ...]]:
    """The key hint or the certificates of a bundle's verification material."""
    _expect_keys(material, set(), {"tlogEntries", "publicKey", "x509CertificateChain"})
    if material.get("tlogEntries", []) != []:
        raise ValueError("it has log entries, which belong to keyless signatures")
    if ("publicKey" in material) == ("x509CertificateChain" in material):
        raise ValueError("it names neither a key nor a certificate, or both")
    if "publicKey" in material:
        _expect_keys(material["publicKey"], {"hint"})
        if not isinstance(material["publicKey"]["hint"], str):
            raise ValueError("its key hint is not text")
        return material["publicKey"]["hint"], ()
    _expect_keys(material["x509CertificateChain"], {"certificates"})
    chain = material["x509CertificateChain"]["certificates"]
    if not isinstance(chain, list) or not 1 <= len(chain) <= MAX_CERTIFICATES:
        raise ValueError(f"it does not hold 1 to {MAX_CERTIFICATES} certificates")
    for certificate in chain:
        _expect_keys(certificate, {"rawBytes"})
    return "", tuple(_from_base64(certificate["rawBytes"]) for certificate in chain)


def _expect_keys(value: Any, needed: set[str], possible: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    if not isinstance(value, Mapping):
        raise ValueError("a part of it is not an object")
    if not needed <= value.keys() <= needed | possible:
        raise ValueError(f"it has the fields {sorted(value)[:8]} where {sorted(needed | possible)} belong")


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _from_base64(text: Any) -> bytes:
    """Decode, refusing every spelling but the canonical one (base64 leaves bits unused that could be changed)."""
    if not isinstance(text, str):
        raise ValueError("a part of it is not text")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("a part of it is not base64") from error
    if _to_base64(data) != text:
        raise ValueError("a part of it is not canonical base64")
    return data


def _brief(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
