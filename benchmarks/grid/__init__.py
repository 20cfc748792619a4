"""Real fine-tuning runs: starting points x tasks x recipes x seeds (benchmarks/zoo.py)."""
