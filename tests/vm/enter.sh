#!/bin/sh
# In the virtual machine: the checkout, which comes over a slow link, is copied into memory first. There Python starts twice as fast.
#
#   enter.sh CHECKOUT TARBALL COMMAND...
set -e
checkout=$1 tarball=$2
shift 2
mkdir -p /mnt/checkout
mount -t tmpfs none /mnt/checkout
tar -x -f "$tarball" -C /mnt/checkout
mount --bind /mnt/checkout "$checkout"
cd "$checkout"
exec "$@"
