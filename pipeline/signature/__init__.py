"""OpenSSF model signatures: the format, the keys, and whom to believe. No file of a package is read here.

    bundle     bytes of ``model.sig`` ⇄ Bundle: a Sigstore bundle around a DSSE envelope
    statement  signed bytes ⇄ names and SHA-256 of the files they vouch for (in-toto)
    keys       PEM keys and certificates, fingerprints, signing and checking
    trust      the trust file: which keys and authorities are believed, for which packages, until when

The format is the one of PyPI's ``model-signing``, which checks our signatures as we check its own (tests/e2e). It is
written out here because ``model-signing`` needs typing-extensions ≥ 4.14.1 and litert-converter 0.5.0 forbids it
(docs/adr/0005).
"""
