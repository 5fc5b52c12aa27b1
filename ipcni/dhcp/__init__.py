"""The dhcp plugin's daemon: leases of pods, each kept by a DHCP client of its own in the pod's namespace (IPAM sheet 4)."""
