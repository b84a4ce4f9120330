"""Keyless signatures: Sigstore's services, through the command of PyPI's ``model-signing``, to be installed apart.

Not verified where kobako is built: there is no way to Sigstore's services from there.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from ..errors import MissingDependency, NetworkError, Untrusted
from .bundle import SIGNATURE_FILE

COMMAND = "model_signing"
TIMEOUT_S = 900
UNREACHABLE = "Failed to refresh TUF metadata"
"""What sigstore-python says when it cannot fetch the keys of Sigstore's services."""
INSTALL = (
    "Install it apart from kobako, whose vendors' pins exclude it: pipx install --preinstall pyopenssl model-signing"
)


def sign_keyless(package: Path, ignored: tuple[str, ...]) -> None:
    """Sign with the identity of the CI job that runs (its OIDC token). Raises MissingDependency, NetworkError."""
    signature = package / SIGNATURE_FILE
    command = [_command(), "sign", "sigstore", str(package), "--signature", str(signature), "--use_ambient_credentials"]
    command += [part for name in ignored for part in ("--ignore-paths", str(package / name))]
    done = _asked(command)
    if done.returncode:
        _raise_if_unreachable(done)
        raise NetworkError(
            f"{COMMAND} could not sign {package}: {_last_line(done)}.",
            "In GitHub Actions the job needs `permissions: id-token: write`.",
        )


def verify_keyless(package: Path, identity: str, issuer: str) -> None:
    """Raise Untrusted unless `identity`, known by `issuer`, signed every file of `package`.

    Raises NetworkError when that cannot be told, because Sigstore's keys could not be fetched.
    """
    command = [_command(), "verify", "sigstore", str(package), "--signature", str(package / SIGNATURE_FILE)]
    command += ["--identity", identity, "--identity_provider", issuer]
    done = _asked(command)
    if done.returncode:
        _raise_if_unreachable(done)
        raise Untrusted(f"{package} is not signed by {identity}: {_last_line(done)}.", "Do not use the package.")


def _asked(command: list[str]) -> subprocess.CompletedProcess[str]:
    """What the command says. Raises NetworkError when it says nothing for a quarter of an hour: no verdict."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise NetworkError(
            f"{COMMAND} did not finish within {TIMEOUT_S} s.", "Sigstore's services may be down: try again later."
        ) from error


def _raise_if_unreachable(done: subprocess.CompletedProcess[str]) -> None:
    """Tell "cannot be asked" from "said no": the command's exit status is the same for both."""
    if UNREACHABLE in done.stdout + done.stderr:
        raise NetworkError("Sigstore's services cannot be reached, which keyless signatures need.", "Try again later.")


def _command() -> str:
    found = shutil.which(COMMAND)
    if not found:
        raise MissingDependency(f"keyless signatures need the command {COMMAND}, which is not on the PATH.", INSTALL)
    return found


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1].rstrip(".") if said else f"exit status {done.returncode}"
