"""Exported + Expectations → Report: the proof that an artifact says what the reference model says.

Four parts, kept apart because they fail for different reasons:

- **weights**: the integers in the file are the quantizer's integers, bit for bit (a miss is a writer's bug);
- **fidelity**: the artifact in its real runtime against the quantized reference (a miss is a converter's bug);
- **quality**: the quantized reference against the original model (a miss is the recipe's price);
- **behaviour**: tokenizer, chat template, stop tokens and greedy text as the phone will see them.
"""

from __future__ import annotations

from .proof import validate

__all__ = ["validate"]
