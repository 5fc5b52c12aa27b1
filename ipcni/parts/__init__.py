"""What several plugins have in common: the pod's interface, masquerading, the delegate for addresses."""
