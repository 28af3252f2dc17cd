# A Kafka node for machines without a registry. Like apache/kafka it takes its settings from KAFKA_…
# variables and keeps its data in /var/lib/kafka/data. Its context holds `libs`, Kafka's jars.
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS jre
ARG APT_MIRROR=
COPY from-mirror.sh /
RUN sh /from-mirror.sh "$APT_MIRROR" openjdk-17-jdk-headless \
    && jlink --output /opt/java --compress=2 --no-header-files --no-man-pages \
        --strip-java-debug-attributes --add-modules \
        java.base,java.desktop,java.logging,java.management,java.naming,java.rmi,java.scripting,java.security.jgss,java.security.sasl,java.sql,java.xml,jdk.crypto.ec,jdk.management,jdk.security.auth,jdk.security.jgss,jdk.unsupported,jdk.zipfs

FROM ${BASE}
RUN groupadd --gid 1000 appuser && useradd --uid 1000 --gid 1000 --no-create-home appuser \
    && install -d -o appuser -g appuser /opt/kafka/config /opt/kafka/logs /var/lib/kafka/data
COPY --from=jre /opt/java /opt/java
COPY libs /opt/kafka/libs
COPY log4j2.xml kafka.sh /etc/kafka/docker/
USER appuser
CMD ["sh", "/etc/kafka/docker/kafka.sh"]
