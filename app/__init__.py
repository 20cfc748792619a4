"""Task2Vec service: embeds labelled image sets and prices fine-tuning on them."""

__version__ = "0.1.0"
