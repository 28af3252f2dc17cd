# Read by the others: how this image's packages are installed.
cd /src
export UV_NO_CACHE=1 UV_LINK_MODE=copy
[ ! -s /run/secrets/ca ] || export SSL_CERT_FILE=/run/secrets/ca
if [ -n "$index" ]; then from="--default-index $index"; else from=--no-index; fi
install() {
    /opt/uv/bin/uv pip install --quiet --python /opt/fedtwin/bin/python --compile-bytecode \
        --constraint constraints.txt --find-links "$wheels" "$@"
}
