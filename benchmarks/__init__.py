"""Every number we claim, one command each."""
