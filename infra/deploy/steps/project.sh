#!/bin/sh
# Install the project itself into a folder of its own.
#   project.sh INDEX WHEELS
set -eu
index=$1 wheels=$2
. /src/infra/deploy/steps/uv.sh
cp -r /src /tmp/src  # a build writes beside its sources
install $from --no-deps --target /opt/project /tmp/src
rm -rf /tmp/src
