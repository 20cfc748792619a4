"""The parts of `benchmarks.embedding_speed`: networks, pictures, passes, job, machine."""
