"""Address management of host-local: ranges (pure), leases (files), and the index beside them."""
