#!/bin/sh
# Write down what KAFKA_… variables say, prepare an empty data folder, and become the broker.
# KAFKA_LOG_DIRS is log.dirs; CLUSTER_ID and KAFKA_HEAP_OPTS are no settings of the broker's.
set -euf
config=/opt/kafka/config/server.properties
env | sed -n 's/^KAFKA_//p' | grep -v '^HEAP_OPTS=' | while IFS='=' read -r name value; do
    echo "$(echo "$name" | tr 'A-Z_' 'a-z.')=$value"
done > "$config"
java="/opt/java/bin/java ${KAFKA_HEAP_OPTS:--Xms256m -Xmx512m} -XX:+UseSerialGC
    -XX:MaxDirectMemorySize=128m -Dlog4j2.configurationFile=/etc/kafka/docker/log4j2.xml
    -cp /opt/kafka/libs/*"
data=$(sed -n 's/^log\.dirs=//p' "$config")
[ -f "$data/meta.properties" ] || $java kafka.tools.StorageTool format \
    --cluster-id="${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}" --config="$config"
exec $java kafka.Kafka "$config"
