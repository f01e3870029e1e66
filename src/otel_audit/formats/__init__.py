"""Records to bytes, pure: OTLP (``otlp``), JSON lines (``jsonl``), a user's own shape (``template``)."""
