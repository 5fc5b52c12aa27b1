"""The CNI protocol: one call's environment and stdin to one exit status and stdout."""
