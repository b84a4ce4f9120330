"""How well packages do their tasks, held against the original model: the program behind ``scripts/bench/tasks``.

Items (two ``.jsonl`` files, in our own words) become questions through the package's own tasks. Each question is put to
the float original and to each target's engine; the answers are kept (`answers`), scored against the reference texts and
against the original's answers (`scores`), and shown as differences with confidence intervals (`rows`).
"""
