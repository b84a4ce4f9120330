"""The roads a package travels: a directory or a static web server, an OCI registry, the Hugging Face Hub.

    addresses   what the user writes → Address
    names       which paths a package may hold: bounded, plain, the same on every file system
    listing     what a road offers: every file with its size and digest
    transport   HTTP as all roads use it: bounded answers, retries, downloads that continue only where that is safe
    client      the client below that: bodies that nobody will look at are passed over
    directory   a plain directory, which any static web server can serve; read in place or over HTTP
    oci, login  an OCI registry, and the credentials that docker and podman keep
    hub         the Hub, by its own client

All roads meet in two protocols (`listing.Source`, `listing.Destination`); `kobako.pipeline.publish` and `.pull` know no
road by name. Tokens come from where each ecosystem keeps them, go to the host they belong to, and are never printed.
"""
