"""The types of the components in the otelcol-contrib distribution, old and new names, without underscores.

Kept as one list because distributions add more than they remove: a type that has gone again is still no misspelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_RECEIVERS: Final = """
activedirectoryds aerospike apache apachespark awscloudwatch awscontainerinsight awscontainerinsightreceiver
awsecscontainermetrics awsfirehose awslambda awss3 awsxray azureblob azureencoding azureeventhub azuremonitor bigip
carbon chrony ciscoos cloudflare cloudfoundry collectd couchdb datadog dockerstats elasticsearch envoyals expvar
faro filelog filestats flinkmetrics fluentforward github gitlab gitproxy googlecloudmonitoring googlecloudpubsub
googlecloudpubsubpush googlecloudspanner haproxy hostmetrics httpcheck huaweicloudces icmpcheck iis influxdb jaeger
jmx journald k8scluster k8sevents k8slog k8sobjects kafka kafkametrics kubeletstats libhoney loki
macosunifiedlogging memcached mongodb mongodbatlas mysql namedpipe netflow nginx nop nsxt ntp opencensus oracledb
osquery otelarrow otlp otlpjsonfile pcap podmanstats postgresql pprof prometheus prometheusremotewrite
prometheussimple pulsar purefa purefb rabbitmq receivercreator redis redfish riak saphana sapm signalfx skywalking
snmp snowflake solace splunkenterprise splunkhec sqlquery sqlserver sshcheck statsd stef syslog systemd tcpcheck
tcplog tlscheck udplog vcenter vcr wavefront webhookevent windowseventlog windowsperfcounters windowsservice
yanggrpc zipkin zookeeper
"""
_PROCESSORS: Final = """
attributes batch coralogix cumulativetodelta deltatocumulative deltatorate dnslookup drain
experimentalmetricsgeneration filter geoip groupbyattrs groupbytrace interval isolationforest k8sattributes logdedup
logstransform lookup memorylimiter metricsgeneration metricstarttime metricstransform probabilisticsampler redaction
remotetap resource resourcedetection routing schema span spanpruning sumologic tailsampling transform unroll
"""
_EXPORTERS: Final = """
alertmanager alibabacloudlogservice awscloudwatchlogs awsemf awskinesis awss3 awsxray azureblob azuredataexplorer
azuremonitor bmchelix carbon cassandra clickhouse coralogix datadog dataset debug doris elasticsearch faro file
googlecloud googlecloudpubsub googlecloudstorage googlemanagedprometheus honeycombmarker influxdb kafka
loadbalancing logging logicmonitor logzio loki mezmo nop opencensus opensearch otelarrow otlp otlpgrpc otlphttp
prometheus prometheusremotewrite pulsar rabbitmq sapm sentry signalfx splunkhec stef sumologic syslog
tencentcloudlogservice tinybird zipkin
"""
_CONNECTORS: Final = """
count datadog exceptions failover forward grafanacloud metricsaslogs otlpjson roundrobin routing servicegraph
signaltometrics slowsql spanmetrics sum
"""
_EXTENSIONS: Final = """
ack asapclient avrologencoding awscloudwatchmetricstreamsencoding awslogsencoding awsproxy azureauth azureencoding
basicauth bearertokenauth cfgardenobserver cgroupruntime datadog dbstorage dockerobserver ecsobserver
ecstaskobserver filestorage googleclientauth googlecloudlogentryencoding googlesecretmanager headerssetter
healthcheck healthcheckv2 hostobserver httpforwarder jaegerencoding jaegerremotesampling jsonlogencoding
k8sleaderelector k8sobserver kafkatopicsobserver memoryballast memorylimiter oauth2client oidc opamp otlpencoding
pprof ratelimiter redisstorage sigv4auth skywalkingencoding solarwindsapmsettings sumologic textencoding
zipkinencoding zpages
"""
_QUEUED: Final = """
otlp otlpgrpc otlphttp kafka clickhouse splunkhec elasticsearch opensearch googlecloudpubsub azuremonitor
awscloudwatchlogs awskinesis pulsar rabbitmq syslog datadog coralogix googlecloud sumologic logzio doris influxdb mezmo
otelarrow signalfx sentry alibabacloudlogservice tencentcloudlogservice loadbalancing
"""

KNOWN: Final[Mapping[str, frozenset[str]]] = {
    "receivers": frozenset(_RECEIVERS.split()),
    "processors": frozenset(_PROCESSORS.split()),
    "exporters": frozenset(_EXPORTERS.split()),
    "connectors": frozenset(_CONNECTORS.split()),
    "extensions": frozenset(_EXTENSIONS.split()),
}
"""By section of a configuration."""

FETCHING: Final = frozenset(
    ("awss3", "azureeventhub", "filelog", "googlecloudpubsub", "kafka", "otlpjsonfile", "pulsar")
)
"""Receivers that fetch at their own pace: nobody waits for them, what they do not fetch stays where it is."""

QUEUED_BY_DEFAULT: Final = frozenset(_QUEUED.split())
"""Exporters whose sending queue is on, in memory, where nothing is said about it."""
