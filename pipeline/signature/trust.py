"""Whom to believe: a Trust, from a trust file (TOML), from one key, or from the user's configuration.

A trust file::

    format = 1
    unsigned = "refuse"                 # or "allow": packages without a signature

    [[key]]
    name = "release 2026"
    file = "release-2026.pub"           # beside this file; or public = \"\"\"-----BEGIN PUBLIC KEY----- …\"\"\"
    packages = ["smollm2-*"]            # names it may sign; all when left out
    until = 2027-06-30                  # last day it is believed; for ever when left out
    revoked = "lost laptop, 2026-09-01" # never believed again, and signatures made with it say why

    [[authority]]                       # signs signers' certificates
    name = "Example Root CA"
    file = "root.pem"

    [[identity]]                        # signs keyless, through Sigstore
    name = "our CI"
    identity = "https://github.com/you/repo/.github/workflows/build.yml@refs/heads/main"
    issuer = "https://token.actions.githubusercontent.com"

Several keys may stand side by side: to rotate, add the new key, re-sign, then give the old one an `until` or `revoked`.
"""

from __future__ import annotations

import datetime
import fnmatch
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import Untrusted, UsageError
from . import keys

TRUST_VARIABLE = "KOBAKO_TRUST"
MAX_TRUST_BYTES = 2**20
TOP_FIELDS = {"format", "unsigned", "key", "authority", "identity"}
BOUNDS = {"packages", "until", "revoked"}
ENTRY_FIELDS = {"name", "file", "public"} | BOUNDS
IDENTITY_FIELDS = {"name", "identity", "issuer"} | BOUNDS


@dataclass(frozen=True, kw_only=True)
class Believed:
    """One key, one authority's certificates, or one identity.

    Attributes:
        name: for messages.
        pem: the public key, or the certificates; empty for an identity.
        fingerprint: of the key (`keys.fingerprint`); empty for others.
        identity: whom Sigstore's certificates name; empty for others.
        issuer: the OpenID issuer that knows the identity.
        packages: patterns of the package names it may vouch for; empty = all.
        until: the last day it is believed; None = for ever.
        revoked: why it must never be believed again; empty = it is not.
    """

    name: str
    pem: bytes = b""
    fingerprint: str = ""
    identity: str = ""
    issuer: str = ""
    packages: tuple[str, ...] = ()
    until: datetime.date | None = None
    revoked: str = ""

    def check_day(self, today: datetime.date) -> None:
        """Raise Untrusted when it is not believed today."""
        if self.revoked:
            raise Untrusted(
                f"the signer {self.name} is revoked: {self.revoked}.", "Get a package signed with a new key."
            )
        if self.until and today > self.until:
            raise Untrusted(
                f"the signer {self.name} is not believed after {self.until}; this machine says it is {today}.",
                "Get a package signed with a newer key, or correct the clock.",
            )

    def check_package(self, package: str) -> None:
        """Raise Untrusted when it may not vouch for a package of that name."""
        if self.packages and not any(fnmatch.fnmatchcase(package, pattern) for pattern in self.packages):
            raise Untrusted(
                f"the signer {self.name} may not sign {package}, only {', '.join(self.packages)}.",
                "Do not use the package, or change `packages` in the trust file.",
            )


@dataclass(frozen=True, kw_only=True)
class Trust:
    """Whom to believe. An empty Trust believes nobody, so that every package is refused.

    Attributes:
        keys: public keys that may sign.
        authorities: roots of certificates that may sign.
        identities: who may sign keyless.
        unsigned: what to do with a package that nobody known has signed.
        origin: where this came from, for messages.
    """

    keys: tuple[Believed, ...] = ()
    authorities: tuple[Believed, ...] = ()
    identities: tuple[Believed, ...] = ()
    unsigned: Literal["refuse", "allow"] = "refuse"
    origin: str = "kobako, given no trust file,"


def trust_key(path: Path, *, unsigned: Literal["refuse", "allow"] = "refuse") -> Trust:
    """Believe the one public key in `path` (PEM). Raises UsageError."""
    return Trust(keys=(_key(path.name, keys.read_pem(path), str(path)),), unsigned=unsigned, origin=str(path))


def trust_identity(identity: str, issuer: str) -> Trust:
    """Believe keyless signatures of one identity, as one OpenID issuer knows it."""
    believed = Believed(name=identity, identity=identity, issuer=issuer)
    return Trust(identities=(believed,), origin=f"--identity {identity}")


def default_trust_file() -> Path:
    """``$KOBAKO_TRUST``, or ``trust.toml`` in the user's configuration directory."""
    if named := os.environ.get(TRUST_VARIABLE):
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_config_dir("kobako")) / "trust.toml"


def choose_trust(
    key: Path | None = None,
    file: Path | None = None,
    *,
    allow_unsigned: bool = False,
    certificate: Path | None = None,
    identity: str | None = None,
    issuer: str | None = None,
) -> Trust:
    """The Trust that a command line asks for: one key, authority or identity, a trust file, or the user's own.

    Without any of them nobody is believed. Raises UsageError.
    """
    from dataclasses import replace

    if bool(identity) != bool(issuer):
        raise UsageError("--identity and --issuer go together.", "The issuer is who knows the identity.")
    if sum(1 for given in (key, file, certificate, identity) if given) > 1:
        raise UsageError(
            "--key, --certificate, --identity and --trust exclude each other.", "Put several into a trust file."
        )
    if identity and issuer:
        trust = trust_identity(identity, issuer)
    elif key:
        trust = trust_key(key)
    elif certificate:
        pem = keys.read_pem(certificate)
        keys.certificates(pem, str(certificate))
        trust = Trust(authorities=(Believed(name=certificate.name, pem=pem),), origin=str(certificate))
    elif file or default_trust_file().is_file() or os.environ.get(TRUST_VARIABLE):
        trust = read_trust(file or default_trust_file())
    else:
        trust = Trust()
    return replace(trust, unsigned="allow") if allow_unsigned else trust


def read_trust(path: Path) -> Trust:
    """Read a trust file. Raises UsageError when it, or a key it names, is not right; nothing in it is ever ignored."""
    try:
        if path.stat().st_size > MAX_TRUST_BYTES:
            raise UsageError(f"{path} is too large to be a trust file.")
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"the trust file {path} cannot be read: {error.strerror}.", "See docs/trust.md.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the trust file {path} is not TOML: {error}.", "See docs/trust.md.") from error
    try:
        return _trust(data, path)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"the trust file {path} is not right: {error}.", "See docs/trust.md.") from error


def _trust(data: Mapping[str, Any], path: Path) -> Trust:
    _only(data, TOP_FIELDS, "the file")
    if data.get("format") != 1:
        raise ValueError(f"its format is {data.get('format')!r}; this kobako reads 1 (a newer one may need an upgrade)")
    unsigned = data.get("unsigned", "refuse")
    if unsigned not in ("refuse", "allow"):
        raise ValueError('unsigned is neither "refuse" nor "allow"')
    believed = tuple(_entry(entry, path) for entry in data.get("key", []))
    authorities = tuple(_entry(entry, path, authority=True) for entry in data.get("authority", []))
    identities = tuple(_identity(entry) for entry in data.get("identity", []))
    if len({key.fingerprint for key in believed}) != len(believed):
        raise ValueError("a key stands in it twice")
    if len({(one.identity, one.issuer) for one in identities}) != len(identities):
        raise ValueError("an identity stands in it twice")
    return Trust(keys=believed, authorities=authorities, identities=identities, unsigned=unsigned, origin=str(path))


def _entry(entry: Mapping[str, Any], path: Path, *, authority: bool = False) -> Believed:
    _only(entry, ENTRY_FIELDS, "an entry")
    name = str(entry["name"])
    if ("file" in entry) == ("public" in entry):
        raise ValueError(f"{name} needs either file or public")
    where = path.parent / str(entry["file"]) if "file" in entry else path
    pem = keys.read_pem(where) if "file" in entry else str(entry["public"]).encode()
    if authority:
        keys.certificates(pem, f"{where} ({name})")
        made = Believed(name=name, pem=pem)
    else:
        made = _key(name, pem, f"{where} ({name})")
    return _bounded(made, entry)


def _identity(entry: Mapping[str, Any]) -> Believed:
    _only(entry, IDENTITY_FIELDS, "an identity")
    name, identity, issuer = (entry[field] for field in ("name", "identity", "issuer"))
    if not all(isinstance(text, str) and text for text in (name, identity, issuer)):
        raise ValueError(f"{name}: identity and issuer are not text")
    return _bounded(Believed(name=name, identity=identity, issuer=issuer), entry)


def _bounded(made: Believed, entry: Mapping[str, Any]) -> Believed:
    """With what bounds the belief in it."""
    from dataclasses import replace

    name = made.name
    until = entry.get("until")
    if until is not None and type(until) is not datetime.date:
        raise ValueError(f"{name}: until is not a date such as 2027-06-30")
    packages = entry.get("packages", [])
    if not isinstance(packages, list) or not all(isinstance(pattern, str) for pattern in packages):
        raise ValueError(f"{name}: packages is not a list of patterns")
    return replace(made, packages=tuple(packages), until=until, revoked=str(entry.get("revoked", "")))


def _key(name: str, pem: bytes, where: str) -> Believed:
    key = keys.public_key(pem, where)
    return Believed(name=name, pem=keys.public_pem(key), fingerprint=keys.fingerprint(key))


def _only(value: Any, fields: set[str], what: str) -> None:
    """A misspelt field of a trust file would weaken it silently."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{what} is not a table")
    if unknown := sorted(set(value) - fields):
        raise ValueError(f"{what} has unknown fields: {', '.join(unknown)}")
