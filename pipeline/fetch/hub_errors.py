"""What the Hub's client raises, said in kobako's words; and how often to try again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from .. import catalogue
from ..errors import AccessDenied, KobakoError, NetworkError, NotEnoughDisk, NotFound
from ..place import FULL

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")

ATTEMPTS = 4
FIRST_WAIT_S = 0.5
HINT = "A partial download is kept: the next run continues it."


class InterruptedTransferError(Exception):
    """The server broke off, or cannot be reached just now: worth another attempt."""


def retried(action: Callable[[], T], repo: str, revision: str | None, arrived: Callable[[], int] = lambda: 0) -> T:
    """Run `action`, again after transient failures, with growing pauses.

    `arrived` counts bytes: while it grows between attempts, attempts are counted anew.
    Raises NetworkError when the attempts are used up, otherwise the translation of what the Hub's client raised.
    """
    attempt, have = 1, arrived()
    while True:
        try:
            return action()
        except KobakoError:
            raise
        except Exception as error:
            if not transient(error):
                raise translated(error, repo, revision) from error
            attempt, have = (1 if arrived() > have else attempt + 1), arrived()
            if attempt > ATTEMPTS:
                raise NetworkError(f"the Hub broke off or cannot be reached: {describe(error)}.", HINT) from error
        time.sleep(FIRST_WAIT_S * 2 ** (attempt - 1))


def transient(error: BaseException) -> bool:
    """Whether another attempt may help: connection trouble, or a server's 429 or 5xx."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, InterruptedTransferError):
        return True
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    # The Hub's client is built on httpx or httpx2, depending on its version: neither is imported here.
    return type(error).__module__.partition(".")[0].startswith("httpx") or isinstance(error, ConnectionError)


def translated(error: Exception, repo: str, revision: str | None) -> Exception:
    """The kobako error for what the Hub's client raised; the same error when it is not about the Hub."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if isinstance(error, HfHubHTTPError):
        return refused(error, repo, revision, f"{constants.ENDPOINT}/{repo}")
    if isinstance(error, HFValidationError):
        return NotFound(f"{repo!r} is not a Hub id: {error}.", "Hub ids look like HuggingFaceTB/SmolLM2-360M-Instruct.")
    if isinstance(error, LocalEntryNotFoundError):  # said by hf_hub_download after it has tried five times itself
        return NetworkError(f"the Hub cannot be reached: {describe(error.__cause__ or error)}.", HINT)
    if isinstance(error, OSError) and error.errno in FULL:
        return NotEnoughDisk(f"the disk is full while fetching {repo}.", "Free some, or move HF_HOME elsewhere.")
    return error


def refused(error: HfHubHTTPError, repo: str, revision: str | None, page: str) -> KobakoError:
    """What an HTTP error of the Hub means. `page` is the repository's own."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    status = error.response.status_code
    if isinstance(error, GatedRepoError):
        return AccessDenied(
            f"{repo} is gated: its owner wants you to agree to terms first.",
            f"Request access at {page}, then run `hf auth login` (or set HF_TOKEN).",
        )
    if isinstance(error, RevisionNotFoundError):
        return NotFound(f"{repo} has no revision {revision!r}.", f"Branches, tags and commits: {page}/commits.")
    if isinstance(error, RepositoryNotFoundError):
        return not_found(repo)
    if status in (401, 403):
        return AccessDenied(
            f"the Hub refuses {repo} to you (HTTP {status}).",
            f"See {page}, and check your token: `hf auth login` (or HF_TOKEN).",
        )
    return NetworkError(f"the Hub answered HTTP {status} for {repo}.", "Try again later.")


def not_found(repo: str) -> NotFound:
    """A repository that is not there, or that a token would show; names near ones."""
    near = [*catalogue.near(repo), *similar(repo)]
    hint = f"Did you mean {' or '.join(near)}? " if near else ""
    return NotFound(
        f"the Hub has no public model {repo}.", hint + "If it is private, run `hf auth login` (or set HF_TOKEN)."
    )


def similar(repo: str) -> list[str]:
    """At most three repositories that the Hub's own search finds for a name; none when it cannot be asked."""
    from huggingface_hub import HfApi, constants

    try:
        api = HfApi(endpoint=constants.ENDPOINT)
        return [model.id for model in api.list_models(search=repo.rpartition("/")[2], limit=3)]
    except Exception:  # a suggestion is not worth another error
        return []


def describe(error: BaseException) -> str:
    """An exception in one short line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
