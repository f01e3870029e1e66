-- Audit records in ClickHouse, as the Collector's exporter inserts them (../scale-out/clickhouse.yaml) or load.sql does.
-- Run it once, before the first consumer: clickhouse-client --multiquery < schema.sql
-- With replicas: ReplicatedReplacingMergeTree instead of ReplacingMergeTree, and ON CLUSTER in every statement.

CREATE DATABASE IF NOT EXISTS audit;

CREATE TABLE IF NOT EXISTS audit.records
(
    -- The exporter's columns: names and types are its own.
    Timestamp DateTime64(9) CODEC(Delta(8), ZSTD(1)),
    TraceId String CODEC(ZSTD(1)),
    SpanId String CODEC(ZSTD(1)),
    TraceFlags UInt8,
    SeverityText LowCardinality(String) CODEC(ZSTD(1)),
    SeverityNumber UInt8,
    ServiceName LowCardinality(String) CODEC(ZSTD(1)),
    Body String CODEC(ZSTD(1)),
    ResourceSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
    ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    ScopeSchemaUrl LowCardinality(String) CODEC(ZSTD(1)),
    ScopeName String CODEC(ZSTD(1)),
    ScopeVersion LowCardinality(String) CODEC(ZSTD(1)),
    ScopeAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    LogAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    EventName LowCardinality(String) CODEC(ZSTD(1)),

    -- Taken from them when a row is written.
    Tenant LowCardinality(String) MATERIALIZED LogAttributes['otel_audit.tenant'],
    -- Two records with one id and different contents are both kept (view audit.conflicts): otherwise whoever can send a
    -- record could remove another one.
    ContentHash UInt128 MATERIALIZED reinterpretAsUInt128(sipHash128(
        toUnixTimestamp64Nano(Timestamp), EventName, Body, toString(mapSort(LogAttributes)))) CODEC(NONE),
    -- A record that came without an id, which no otel-audit sends, is told from others by its contents alone.
    RecordId String MATERIALIZED if(LogAttributes['audit.record.id'] != '',
        LogAttributes['audit.record.id'], concat('content:', toString(ContentHash))) CODEC(ZSTD(1)),
    -- Set by the application as an attribute. Without one: standard. One that is not known is kept longest.
    RetentionClass LowCardinality(String) MATERIALIZED multiIf(
        LogAttributes['retention.class'] IN ('short', 'standard', 'long'), LogAttributes['retention.class'],
        LogAttributes['retention.class'] = '', 'standard', 'long'),

    INDEX actor LogAttributes['audit.actor.id'] TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX target LogAttributes['audit.target.id'] TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX record RecordId TYPE bloom_filter(0.001) GRANULARITY 1,
    INDEX stream LogAttributes['audit.sequence.stream_id'] TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX trace TraceId TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
-- A record that comes twice has the same class and the same time, so both rows are in one partition and one is removed.
PARTITION BY (RetentionClass, toYYYYMM(Timestamp))
ORDER BY (Tenant, toStartOfHour(Timestamp), RecordId, ContentHash)
-- A record without a time, or with one that cannot be right, is kept: nobody's clock shall remove a record at once.
TTL if(Timestamp < '2000-01-01' OR Timestamp > '2090-01-01', toDateTime('2105-01-01'),
    toDateTime(Timestamp) + toIntervalDay(multiIf(RetentionClass = 'short', 90, RetentionClass = 'standard', 400, 3653)))
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000;

-- One row for each record, under the names that otel-audit uses.
CREATE VIEW IF NOT EXISTS audit.events AS
SELECT
    RecordId AS record_id,
    Timestamp AS timestamp,
    EventName AS event_name,
    Tenant AS tenant,
    LogAttributes['audit.actor.id'] AS actor_id,
    LogAttributes['audit.actor.type'] AS actor_type,
    LogAttributes['audit.action'] AS action,
    LogAttributes['audit.outcome'] AS outcome,
    LogAttributes['audit.target.id'] AS target_id,
    LogAttributes['audit.target.type'] AS target_type,
    LogAttributes['audit.source.id'] AS source_id,
    LogAttributes['session.id'] AS session_id,
    LogAttributes['otel_audit.request_id'] AS request_id,
    LogAttributes['otel_audit.reason'] AS reason,
    ServiceName AS service_name,
    Body AS body,
    TraceId AS trace_id,
    SpanId AS span_id,
    LogAttributes['audit.sequence.stream_id'] AS stream_id,
    toUInt64OrZero(LogAttributes['audit.sequence.number']) AS sequence,
    LogAttributes['audit.sequence.previous_hash'] AS previous_hash,
    LogAttributes['otel_audit.control'] != '' AS control,
    LogAttributes AS attributes,
    ResourceAttributes AS resource,
    RetentionClass AS retention_class
FROM audit.records FINAL;

-- Streams of which records are missing: numbers begin at 1 and have no gaps. A stream whose oldest records were removed by
-- the TTL begins later; `first` says so.
CREATE VIEW IF NOT EXISTS audit.gaps AS
SELECT
    stream_id,
    any(service_name) AS service_name,
    min(sequence) AS first,
    max(sequence) AS last,
    uniqExact(sequence) AS present,
    last - first + 1 - present AS missing
FROM audit.events
WHERE stream_id != ''
GROUP BY stream_id
HAVING missing > 0 OR first > 1;

-- Record ids under which different contents arrived.
CREATE VIEW IF NOT EXISTS audit.conflicts AS
SELECT RecordId AS record_id, uniqExact(ContentHash) AS contents, groupUniqArray(ServiceName) AS service_names
FROM audit.records
GROUP BY RecordId
HAVING contents > 1;

-- What happened how often, a row for each day.
CREATE VIEW IF NOT EXISTS audit.daily AS
SELECT tenant, toDate(timestamp) AS day, event_name, outcome, count() AS records
FROM audit.events
WHERE NOT control
GROUP BY tenant, day, event_name, outcome;
