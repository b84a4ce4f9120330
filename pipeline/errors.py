"""Every way kobako can say no, drawn as one tree; each class has an exit code of its own.

    KobakoError                       1   (never raised itself)
    ├── UsageError                    2   the command line or a parameter makes no sense
    ├── NotFound                      3   no such model, revision, file or target
    ├── AccessDenied                  4   gated or private, and no token that opens it
    ├── NetworkError                  5   the server cannot be reached, or broke off
    ├── ProofFailed                   6   an artifact does not say what the reference says
    ├── IntegrityError                7   a digest, size or header does not match
    │   └── Untrusted                20   unsigned, or signed by nobody who is believed
    ├── UnsupportedModel              8   architecture, tokenizer or rope kobako cannot export
    ├── UnsupportedRecipe             9   a target cannot hold what the recipe asks for
    ├── NotEnoughMemory              10   estimated before the start, or reached during it
    ├── NotEnoughDisk                11   the disk is, or would be, full
    ├── OutputError                  12   the output exists, or cannot be written
    ├── TargetCrashed                13   a target's process died; the others went on
    ├── MissingDependency            14   a vendor package of a target is not installed
    ├── BadArtifact                  15   a file is not the artifact it claims to be
    └── LicenceRefused               21   the model's licence does not pass --licence-policy

A message states what happened, the evidence, and the next step. Errors are caught once, in the CLI.
"""

from __future__ import annotations


class KobakoError(Exception):
    """Base of all expected failures.

    Args:
        what: what happened, with the evidence (names, figures).
        next_step: what the user can do now; empty when there is nothing to suggest.
    """

    exit_code = 1

    def __init__(self, what: str, next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.what} {self.next_step}".strip()

    def __reduce__(self) -> tuple[type[KobakoError], tuple[str, str]]:
        return type(self), (self.what, self.next_step)


class UsageError(KobakoError):
    """The command line or a parameter makes no sense."""

    exit_code = 2


class NotFound(KobakoError):
    """No such model, revision, file or target."""

    exit_code = 3


class AccessDenied(KobakoError):
    """The model is gated or private and no token opens it."""

    exit_code = 4


class NetworkError(KobakoError):
    """The server cannot be reached, or broke off for good."""

    exit_code = 5


class ProofFailed(KobakoError):
    """An artifact does not say what the reference model says."""

    exit_code = 6


class IntegrityError(KobakoError):
    """A digest, a size or a header does not match what was promised."""

    exit_code = 7


class Untrusted(IntegrityError):
    """A package is not signed, or signed by nobody who is believed."""

    exit_code = 20


class UnsupportedModel(KobakoError):
    """An architecture, tokenizer or rope variant that kobako cannot export."""

    exit_code = 8


class UnsupportedRecipe(KobakoError):
    """A target cannot hold what the recipe asks for."""

    exit_code = 9


class NotEnoughMemory(KobakoError):
    """Memory is short: estimated before the start, or a process reached its limit."""

    exit_code = 10


class NotEnoughDisk(KobakoError):
    """The disk is, or would become, full."""

    exit_code = 11


class OutputError(KobakoError):
    """The output exists already, or cannot be written."""

    exit_code = 12


class TargetCrashed(KobakoError):
    """A target's process died or raised something unexpected."""

    exit_code = 13


class MissingDependency(KobakoError):
    """A vendor package that a target needs is not installed."""

    exit_code = 14


class BadArtifact(KobakoError):
    """A file is not the artifact it claims to be, or holds what kobako cannot run."""

    exit_code = 15


class LicenceRefused(KobakoError):
    """The model's licence does not pass ``--licence-policy``."""

    exit_code = 21


def all_errors() -> list[type[KobakoError]]:
    """Every documented error class, by exit code; the source of ``--help`` and of the README's table."""
    found: list[type[KobakoError]] = []
    waiting = KobakoError.__subclasses__()
    while waiting:
        error = waiting.pop()
        waiting += error.__subclasses__()
        if not error.__name__.startswith("_"):
            found.append(error)
    return sorted(found, key=lambda error: error.exit_code)


def by_name(name: str) -> type[KobakoError]:
    """The error class called `name`, for errors that crossed a process boundary."""
    return next((error for error in all_errors() if error.__name__ == name), TargetCrashed)
