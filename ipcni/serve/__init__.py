"""The server that keeps plugins warm: a pool of processes that have everything imported and a shell running."""
