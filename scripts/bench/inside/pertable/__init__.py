"""What a table of per-layer embeddings costs: `rows` measures the file alone, `engines` each target's real engine."""
