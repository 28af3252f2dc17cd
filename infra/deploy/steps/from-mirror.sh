#!/bin/sh
# Install Debian packages from a mirror that the image afterwards knows nothing of.
#   from-mirror.sh MIRROR PACKAGE…       an empty MIRROR: as the image's own lists say
set -eu
mirror=$1
shift
options=
if [ -n "$mirror" ]; then
    . /etc/os-release
    echo "deb $mirror $VERSION_CODENAME main" > /tmp/mirror.list
    options="-o Dir::Etc::SourceList=/tmp/mirror.list -o Dir::Etc::SourceParts=/dev/null"
fi
apt-get $options update -qq
DEBIAN_FRONTEND=noninteractive apt-get $options install -qq -y --no-install-recommends "$@" \
    > /tmp/apt.log 2>&1 || { cat /tmp/apt.log >&2; exit 1; }
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf/*-old /var/log/apt \
    /var/log/dpkg.log /var/log/alternatives.log /var/cache/ldconfig /tmp/mirror.list /tmp/apt.log \
    /usr/share/doc/* /usr/share/man/*/*
