-- Questions that auditors ask, on the views of schema.sql. Parameters as clickhouse-client has them: --param_tenant=acme

-- What did this person do?
SELECT timestamp, event_name, target_type, target_id, outcome, source_id
FROM audit.events
WHERE tenant = {tenant:String} AND actor_id = {actor:String} AND timestamp >= {since:DateTime64(9)}
ORDER BY timestamp DESC, record_id
LIMIT 1000;

-- Who touched this?
SELECT timestamp, actor_type, actor_id, event_name, outcome, reason
FROM audit.events
WHERE tenant = {tenant:String} AND target_type = {target_type:String} AND target_id = {target:String}
ORDER BY timestamp, record_id
LIMIT 1000;

-- Who failed most often since then?
SELECT actor_id, event_name, count() AS failures, max(timestamp) AS last
FROM audit.events
WHERE tenant = {tenant:String} AND outcome = 'failure' AND timestamp >= {since:DateTime64(9)}
GROUP BY actor_id, event_name
ORDER BY failures DESC, actor_id
LIMIT 100;

-- The one record with this id, with everything it carries.
SELECT * FROM audit.events WHERE record_id = {record:String};

-- What happened how often, day by day?
SELECT day, event_name, outcome, records FROM audit.daily WHERE tenant = {tenant:String} ORDER BY day, event_name, outcome;

-- Is anything missing, and did different contents come under one id? Both must be empty.
SELECT * FROM audit.gaps;
SELECT * FROM audit.conflicts;
