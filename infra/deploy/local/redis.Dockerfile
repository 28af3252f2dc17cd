# A Redis server for machines without a registry, from Debian's package. Like the public image it
# runs as `redis` and keeps its data in /data.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS installed
ARG APT_MIRROR=
COPY from-mirror.sh /
RUN sh /from-mirror.sh "$APT_MIRROR" redis-server && install -d -o redis -g redis /data \
    && rm /from-mirror.sh

# The same without its history, in which the mirror stands.
FROM scratch
COPY --from=installed / /
WORKDIR /data
USER redis
CMD ["redis-server"]
