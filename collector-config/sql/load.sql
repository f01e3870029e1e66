-- Loads what a Collector wrote into audit.records: the files of agent/config.yaml, gateway/files.yaml and
-- scale-out/files.yaml, or objects of an archive that were copied here.
--
--   clickhouse-client --param_files='/var/lib/otelcol-audit/audit*.jsonl' < load.sql
--
-- Straight from a bucket: replace file({files:String}, by s3('https://BUCKET.s3.amazonaws.com/audit/**', .
-- Loading twice does no harm: the table removes what it has. A line may begin with a fragment, which a kill or a full disk
-- left behind; it is cut off, and what follows it is loaded.

INSERT INTO audit.records
    (Timestamp, TraceId, SpanId, TraceFlags, SeverityText, SeverityNumber, ServiceName, Body, ResourceSchemaUrl,
     ResourceAttributes, ScopeSchemaUrl, ScopeName, ScopeVersion, ScopeAttributes, LogAttributes, EventName)
WITH
    -- A string as it is; a list or a map as the JSON of its tagged values; anything else as its JSON.
    (value) -> if(JSONType(value) != 'Object' OR value = '{}', '',
        if(JSONHas(value, 'stringValue'), JSONExtractString(value, 'stringValue'),
        trim(BOTH '"' FROM JSONExtractKeysAndValuesRaw(value)[1].2))) AS plain,
    (list) -> mapFromArrays(
        arrayMap(each -> JSONExtractString(each, 'key'), list),
        arrayMap(each -> plain(JSONExtractRaw(each, 'value')), list)) AS pairs
SELECT
    fromUnixTimestamp64Nano(toInt64OrZero(if(time IN ('', '0'), JSONExtractString(record, 'observedTimeUnixNano'), time))),
    JSONExtractString(record, 'traceId'),
    JSONExtractString(record, 'spanId'),
    JSONExtractUInt(record, 'flags'),
    JSONExtractString(record, 'severityText'),
    JSONExtractUInt(record, 'severityNumber'),
    resource_attributes['service.name'],
    plain(JSONExtractRaw(record, 'body')),
    JSONExtractString(resource, 'schemaUrl'),
    pairs(JSONExtractArrayRaw(resource, 'resource', 'attributes')) AS resource_attributes,
    JSONExtractString(scope, 'schemaUrl'),
    JSONExtractString(scope, 'scope', 'name'),
    JSONExtractString(scope, 'scope', 'version'),
    pairs(JSONExtractArrayRaw(scope, 'scope', 'attributes')),
    pairs(JSONExtractArrayRaw(record, 'attributes')),
    JSONExtractString(record, 'eventName')
FROM
(
    SELECT resource, scope, arrayJoin(JSONExtractArrayRaw(scope, 'logRecords')) AS record,
        JSONExtractString(record, 'timeUnixNano') AS time
    FROM
    (
        SELECT resource, arrayJoin(JSONExtractArrayRaw(resource, 'scopeLogs')) AS scope
        FROM
        (
            SELECT arrayJoin(JSONExtractArrayRaw(request, 'resourceLogs')) AS resource
            FROM
            (
                -- Inside a JSON string the quotation marks are escaped, so this begins a request and nothing else.
                SELECT '{"resourceLogs"' || arrayJoin(arrayPopFront(splitByString('{"resourceLogs"', line))) AS request
                FROM file({files:String}, 'LineAsString', 'line String')
            )
            WHERE isValidJSON(request)
        )
    )
)
