"""The way of a model: an id goes in at one end, a proven package comes out at the other.

    fetch      a model id → Source: files with digests, revision pinned            (fetch/, catalogue)
    load       Source → Reference: config, stop ids, tokenizer in one form         (reference/)
    sensitivity  what 4 bits cost each matrix, for mixtures only                     (sensitivity, allocate)
    quantize   Reference + Recipe → Quantized: codes and scales, decided once      (quantize, weights)
    original   Reference → what it says to the proof text, once for all recipes    (reading)
    expect     Original + Quantized → Expectations: what artifacts must say        (expect, standard)
    export     Quantized → Exported, for each target                               (kobako.targets)
    validate   Exported + Expectations → Report: the proof                         (validate/)
    measure    Exported → Measurement: speed and memory in the engine              (measure)
    package    all of it → one directory with a manifest                           (package, manifest, report/)

Encoders answer with vectors or labels instead of text: an `expect`, `validate` and `measure` of their own (encoder).
Encoder-decoders answer a text with another one: an `expect` and a `validate` of their own (seq2seq).

Each stage is one function from frozen value to frozen value (`contracts`). `prepare`, `expected` and `build` know the
order; `cache` keeps results by content; `process` and `worker` run each stage in a process of its own; `cli` parses,
calls and prints.
"""
