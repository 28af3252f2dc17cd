#!/bin/sh
# Install what a target needs but for the project itself, and take away what nobody runs.
#   packages.sh light|full INDEX WHEELS [TORCH_INDEX]
set -eu
target=$1 index=$2 wheels=$3 torch=${4-}
. /src/infra/deploy/steps/uv.sh
if [ -n "$torch" ]; then
    install --default-index "$torch" --no-deps torch torchvision
fi
install $from --override "infra/deploy/steps/$target.txt" -r pyproject.toml --extra kafka
# Headers, a compiler of messages, and tests: of no use without a compiler, and to who only runs what they are of.
packages=$(echo /opt/fedtwin/lib/python3*/site-packages)
for each in numpy scipy sklearn pandas skimage matplotlib joblib; do
    [ ! -d "$packages/$each" ] || find "$packages/$each" -type d -name tests -prune -exec rm -rf {} +
done
rm -rf "$packages"/torch/include "$packages"/torch/share "$packages"/torch/bin/protoc* \
    "$packages"/nvidia/*/include
find "$packages" -name '*.a' -delete
