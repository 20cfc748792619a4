"""Fine-tuning runs that no estimator has seen, and what was forecast of them."""
