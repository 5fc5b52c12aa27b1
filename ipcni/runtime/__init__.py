"""A CNI runtime: finds network configurations, calls plugins in turn, and remembers results as libcni does."""
