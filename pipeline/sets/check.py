"""A set directory → what is vouched for: the signature, then the table, then every member.

The order is that of `kobako.pipeline.verify`: ``model.sig`` first, then the bytes of ``kobako-set.json``, which is only
then parsed; then each member's ``kobako.json`` against the digest in it; then the member's files against its manifest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..contents import compare, files_in
from ..errors import BadArtifact, IntegrityError, NotFound
from ..manifest import MANIFEST_FILE, SET_FILE, sha256_of
from ..sign import SigningKey, write_keyless, write_signature
from ..signature.bundle import SIGNATURE_FILE
from ..signature.statement import Statement
from ..signature.trust import Trust
from ..verify import Signed, Signer, Verified, signature_of, verify
from .table import Member, PackageSet, Route, check_served, read_set

MAKE_AGAIN = "Pull the set again, or make it again (kobako set make) if the change is meant."


@dataclass(frozen=True, kw_only=True)
class VerifiedSet:
    """A set that may be used.

    Attributes:
        signer: None when nobody known signed the set and the Trust allows that.
        members: what is here, by name.
        absent: names of members with an address of their own that were not pulled.
    """

    directory: Path
    package_set: PackageSet
    signer: Signer | None
    members: Mapping[str, Verified]
    absent: tuple[str, ...]


def verify_set(directory: Path, trust: Trust, targets: Sequence[str] | None = None) -> VerifiedSet:
    """Check that a set directory is what somebody believed has signed, members included.

    Args:
        targets: those that each member must have here.

    Raises Untrusted when it is unsigned (unless the Trust allows that) or signed by nobody believed, IntegrityError
    when a member was changed or is missing, or something was added, BadArtifact when it is no set.
    """
    directory = directory.resolve()
    if not directory.is_dir():
        raise BadArtifact(f"{directory} is not a package set: no such directory.", "Give a set's directory.")
    return check_set(directory, signature_of(directory, trust), trust, targets)


def check_set(
    directory: Path, signed: Signed | None, trust: Trust | None = None, targets: Sequence[str] | None = None
) -> VerifiedSet:
    """`verify_set` once the signature is known; without one, the set is held against its own digests only."""
    present = files_in(directory)  # refuses links
    if signed is not None:
        check_signed_table(directory, signed)
    made = read_set(directory)
    if signed is not None:
        check_names_allowed(made, signed)
    _refuse_strangers(directory, made, present)
    # the set's signer vouches for members through their digests: a signature of their own is welcome, not needed, and
    # Sigstore is not asked about each
    lenient = replace(trust or Trust(), unsigned="allow", identities=())
    members = {
        member.name: _checked(directory, member, lenient, targets)
        for member in made.members
        if member.inside or (directory / member.folder).is_dir()
    }
    check_served(made, {name: one.manifest for name, one in members.items()})
    return VerifiedSet(
        directory=directory,
        package_set=made,
        signer=signed.signer if signed else None,
        members=members,
        absent=tuple(member.name for member in made.members if member.name not in members),
    )


def check_signed_table(directory: Path, signed: Signed) -> None:
    """Raise BadArtifact or IntegrityError unless ``kobako-set.json`` is what was signed."""
    if SET_FILE not in signed.digests:
        raise BadArtifact(f"what is signed in {directory} is not a package set.", "Do not use it.")
    compare(directory, {SET_FILE: signed.digests[SET_FILE]})


def check_names_allowed(made: PackageSet, signed: Signed) -> None:
    """Raise Untrusted when the signer may not vouch for the set's name, or for a member's."""
    for name in (made.name, *(member.name for member in made.members)):
        signed.check_package(name)


def _refuse_strangers(directory: Path, made: PackageSet, present: Mapping[str, int]) -> None:
    folders = tuple(f"{member.folder}/" for member in made.members)
    strangers = sorted(
        name for name in present if name not in (SET_FILE, SIGNATURE_FILE) and not name.startswith(folders)
    )
    if strangers:
        raise IntegrityError(
            f"{directory} holds {strangers[0]!r}, which belongs to no member.", "Remove it, or pull the set again."
        )


def _checked(directory: Path, member: Member, trust: Trust, targets: Sequence[str] | None) -> Verified:
    check_member(directory, member)
    return verify(directory / member.folder, trust, targets)


def check_member(directory: Path, member: Member) -> Path:
    """A member's directory, once its ``kobako.json`` is the one that the set was made with.

    Raises NotFound when it has an address of its own and was not pulled, IntegrityError when it is missing or another,
    BadArtifact for a set inside the set.
    """
    home = directory / member.folder
    if (home / SET_FILE).exists():
        raise BadArtifact(f"the member {member.name} of {directory} is a set itself.", "A set holds packages only.")
    if not member.inside and not home.is_dir():
        raise NotFound(
            f"the member {member.name} is not here: it lies at {member.where}.", "Pull the set (kobako pull)."
        )
    manifest = home / MANIFEST_FILE
    if manifest.is_symlink() or not manifest.is_file():
        raise IntegrityError(f"the member {member.name} is missing from {directory}.", "Pull or make the set again.")
    if sha256_of(manifest) != member.manifest_sha256:
        raise IntegrityError(
            f"the member {member.name} was changed after {directory} was made: its {MANIFEST_FILE} is another.",
            MAKE_AGAIN,
        )
    return home


def sign_set(directory: Path, signing_key: SigningKey) -> VerifiedSet:
    """Write ``model.sig`` over the checked set, verify it as a stranger would, and return that.

    It vouches for ``kobako-set.json`` alone, whose digests vouch for all else: it holds for a set pulled in part too.
    Raises as `verify_set`, and UsageError for a key that cannot sign, OutputError.
    """
    whole = check_set(directory.resolve(), None)
    digests = {SET_FILE: sha256_of(directory / SET_FILE)}
    mine = write_signature(directory, Statement(name=whole.package_set.name, digests=digests), signing_key)
    return verify_set(directory, mine) if mine else whole


def sign_set_in_ci(directory: Path) -> VerifiedSet:
    """`sign_set` with the identity of the CI job that runs. Raises MissingDependency and NetworkError, too."""
    whole = check_set(directory.resolve(), None)
    folders = tuple(member.folder for member in whole.package_set.members)
    return verify_set(directory, write_keyless(directory, folders))


def package_for(
    directory: Path, task: str | None, *, source: str | None = None, to: str | None = None, domain: str | None = None
) -> tuple[Path, Route]:
    """The member of a set that does a task, and the row that led to it.

    Raises UsageError, NotFound for a task that nobody serves, IntegrityError for a member that was changed.
    """
    made = read_set(directory)
    route = made.choose(task, source=source, to=to, domain=domain)
    return check_member(directory, made.member(route.member)), route
