"""What an int8 KV cache costs and saves: one attention in three ways, and whole packages at full context."""
