"""A stand-in for ``model_signing`` and Sigstore's client, whose services are never reached here.

Its signatures have the form of real ones (certificates that name an identity and its issuer, a log entry) and hold by
real mathematics; the authority behind them and the log are what is missing. kobako's own code for the client runs.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

IDENTITY = "https://github.com/me/models/.github/workflows/build.yml@refs/heads/main"
ISSUER = "https://token.actions.githubusercontent.com"
ISSUER_OID = "1.3.6.1.4.1.57264.1.8"
CLIENT = {
    "errors.py": "class VerificationError(Exception): pass\n",
    "models.py": (
        "class InvalidBundle(Exception): pass\nclass Bundle:\n    @staticmethod\n    def from_json(text): return text\n"
    ),
    "verify/__init__.py": (
        "import os, sys\n"
        "from sigstore.errors import VerificationError\n"
        "from . import policy\n"
        "class Verifier:\n"
        "    @staticmethod\n"
        "    def production(*, offline):\n"
        "        if os.environ.get('UNREACHABLE'): raise OSError('Failed to refresh TUF metadata')\n"
        "        return Verifier()\n"
        "    def verify_dsse(self, bundle, policy):\n"
        "        import keyless_tool\n"
        "        try: return keyless_tool.check(bundle, policy['identity'], policy['issuer'])\n"
        "        except Exception as error: raise VerificationError(repr(error))\n"
    ),
    "verify/policy.py": "def Identity(**who): return who\n",
    "__init__.py": "",
}


def write_tool(home: Path, identity: str = IDENTITY, issuer: str = ISSUER) -> Path:
    """The ``bin`` folder of an environment whose ``model_signing`` signs as `identity`."""
    bin_, client = home / "bin", home / "client" / "sigstore"
    (client / "verify").mkdir(parents=True)
    bin_.mkdir()
    for name, text in CLIENT.items():
        (client / name).write_text(text)
    unit = str(Path(__file__).parent)
    (bin_ / "model_signing").write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {unit!r})\n"
        f"from keyless_tool import sign\nsign(sys.argv[1:], {identity!r}, {issuer!r})\n"
    )
    # -I, which would hide the client, is left out
    (bin_ / "python3").write_text(
        f'#!/bin/sh\n[ "$1" = -I ] || exit 9\nshift\n'
        f'PYTHONPATH="{client.parent}:{unit}:$PYTHONPATH" exec {sys.executable} "$@"\n'
    )
    for program in bin_.iterdir():
        program.chmod(0o755)
    return bin_


def sign(arguments: list[str], identity: str, issuer: str) -> None:
    """``model_signing sign sigstore PACKAGE --signature PATH --use_ambient_credentials --ignore-paths PATH …``."""
    assert arguments[:2] == ["sign", "sigstore"], arguments
    assert arguments[3::2][:1] == ["--signature"], arguments
    assert arguments[5] == "--use_ambient_credentials"
    assert set(arguments[6::2]) == {"--ignore-paths"}
    package, signature = Path(arguments[2]), Path(arguments[4])
    ignored = [Path(path) for path in arguments[7::2]]
    files = [
        path for path in sorted(package.rglob("*"))
        if path.is_file() and not any(path == one or one in path.parents for one in ignored)
    ]  # fmt: skip
    digests = {path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    signature.write_bytes(make_bundle(package.name, digests, identity, issuer))


def make_bundle(name: str, digests: dict[str, str], identity: str = IDENTITY, issuer: str = ISSUER) -> bytes:
    """The bytes of a keyless ``model.sig``, with a key and a certificate of its own."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from kobako.pipeline.signature.bundle import MEDIA_TYPE, PAYLOAD_TYPE, signed_bytes
    from kobako.pipeline.signature.statement import Statement, encode_statement

    key = ec.generate_private_key(ec.SECP256R1())
    payload = encode_statement(Statement(name=name, digests=digests), ())
    signature = key.sign(signed_bytes(payload), ec.ECDSA(hashes.SHA256()))
    value = {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "certificate": {"rawBytes": _text(make_certificate(key, identity, issuer))},
            "tlogEntries": [{"logIndex": "1"}],
            "timestampVerificationData": {},
        },
        "dsseEnvelope": {
            "payload": _text(payload), "payloadType": PAYLOAD_TYPE, "signatures": [{"sig": _text(signature)}],
        },
    }  # fmt: skip
    return json.dumps(value).encode()


def make_certificate(key: Any, identity: str, issuer: str | None) -> bytes:
    """DER, as Sigstore's authority makes them: no subject, the identity as alternative name, the issuer apart."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    now = datetime.datetime.now(datetime.UTC)
    name: Any = x509.UniformResourceIdentifier(identity) if "://" in identity else x509.RFC822Name(identity)
    made = (
        x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([])).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(minutes=20)).not_valid_after(now)
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
    )  # fmt: skip
    if issuer is not None:
        told = b"\x0c" + bytes([len(issuer)]) + issuer.encode() if issuer else b"\x0c"
        made = made.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(ISSUER_OID), told), critical=False)
    return made.sign(key, hashes.SHA256()).public_bytes(_der())


def check(text: str, identity: str, issuer: str) -> tuple[str, bytes]:
    """What Sigstore's client answers: the payload, when the signature is by that identity."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from kobako.pipeline.signature.bundle import signed_bytes
    from kobako.pipeline.signature.keyless import Identity, identity_of

    value = json.loads(text)
    envelope, material = value["dsseEnvelope"], value["verificationMaterial"]
    der = base64.b64decode(material["certificate"]["rawBytes"])
    payload, signature = (base64.b64decode(part) for part in (envelope["payload"], envelope["signatures"][0]["sig"]))
    assert identity_of(der) == Identity(identity, issuer), "another identity"
    key = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(signature, signed_bytes(payload), ec.ECDSA(hashes.SHA256()))
    return envelope["payloadType"], payload


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _der() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER
