"""In kobako's environment: mean KL (nats) and top-1 agreement of logits with the original model's.

usage: compare.py EXPECTED.npy ACTUAL.npy     both float32 ``[N, V]``
"""

from __future__ import annotations

import json
import sys

import numpy as np
from kobako.pipeline.metrics import kl_nats, top1_agreement


def main() -> None:
    expected, actual = (np.load(path) for path in sys.argv[1:])
    if expected.shape != actual.shape:
        raise SystemExit(f"logits have shape {actual.shape}, expected {expected.shape}")
    kl = float(kl_nats(expected, actual).mean()) if np.isfinite(actual).all() else None
    print(json.dumps({"kl_nats": kl, "top1": top1_agreement(expected, actual), "tokens": len(expected)}))


if __name__ == "__main__":
    main()
