"""The parts of `benchmarks.embedding_quality`: labelled sets, methods, measures."""
