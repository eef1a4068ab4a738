"""Storage: what is kept of instances, and the transactions that keep it; others see ``storage.interface`` only."""
