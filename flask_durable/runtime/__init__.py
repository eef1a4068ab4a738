"""Runtime: threads and leases; it knows the Store protocol, not the tables, and runs without Flask."""
