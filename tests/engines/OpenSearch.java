// One OpenSearch node without plugins but the network, for tests: java -cp JARS:'JARS/*' OpenSearch DIRECTORY PORT
// It listens on the loopback interface only and ends with its standard input.

import java.util.List;
import org.opensearch.common.settings.Settings;
import org.opensearch.env.Environment;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

public class OpenSearch extends Node {
    OpenSearch(Environment environment) {
        super(environment, List.of(Netty4Plugin.class), false);
    }

    public static void main(String[] arguments) throws Exception {
        Settings settings = Settings.builder()
            .put("path.home", arguments[0])
            .put("http.port", arguments[1])
            .put("network.host", "127.0.0.1")
            .put("transport.port", "0")
            .put("transport.type", "netty4")
            .put("http.type", "netty4")
            .put("cluster.name", "tests")
            .put("node.name", "tests")
            .put("discovery.type", "single-node")
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
        try (Node node = new OpenSearch(new Environment(settings, null)).start()) {
            while (System.in.read() >= 0) {
                continue;
            }
        }
    }
}
