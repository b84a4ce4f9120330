"""From an address to the road that leads there. Importing this imports no road: each is imported when it is taken."""

from __future__ import annotations

from ..errors import UsageError
from .addresses import Address, parse
from .listing import Destination, Source


def open_source(text: str, *, plain_http: bool = False) -> Source:
    """The source at an address. Raises UsageError."""
    address = parse(text)
    if address.kind == "oci":
        from .oci import OciSource

        return OciSource(address, plain_http=plain_http)
    if address.kind == "hub":
        from .hub import HubSource

        return HubSource(address)
    from .directory import DirectorySource, WebSource

    return WebSource(address) if address.kind == "web" else DirectorySource(address)


def open_destination(text: str, *, plain_http: bool = False, private: bool = False) -> Destination:
    """The destination at an address. Raises UsageError for a web server: those are filled by copying a directory."""
    address: Address = parse(text)
    if address.kind == "oci":
        from .oci import OciDestination

        return OciDestination(address, plain_http=plain_http)
    if address.kind == "hub":
        from .hub import HubDestination

        return HubDestination(address, private=private)
    if address.kind == "web":
        raise UsageError(
            f"{address} is a web server, which cannot be published to.",
            "Publish into a directory, and copy that to the server (rsync, aws s3 sync): VERSION directories first, "
            "index.json last.",
        )
    from .directory import DirectoryDestination

    return DirectoryDestination(address)
