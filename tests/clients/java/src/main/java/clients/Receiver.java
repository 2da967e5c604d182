package clients;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.http.HttpHeaders;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentSkipListMap;

/** The customer's side of webhooks: takes every request and remembers it. */
final class Receiver {
    /** One request as it came. */
    record Hook(String path, HttpHeaders headers, String body) {
        String header(String name) {
            return headers.firstValue(name).orElse("");
        }

        /** The same with another value of one header. */
        Hook with(String name, String value) {
            Map<String, List<String>> all = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
            all.putAll(headers.map());
            all.put(name, List.of(value));
            return new Hook(path, HttpHeaders.of(all, (each, any) -> true), body);
        }

        Hook withBody(String other) {
            return new Hook(path, headers, other);
        }

        /** The events about a channel, without the counts, of which there are more or fewer. */
        List<JsonObject> events(String channel) {
            List<JsonObject> events = new ArrayList<>();
            for (JsonElement each : JsonParser.parseString(body).getAsJsonObject().getAsJsonArray("events")) {
                JsonObject event = each.getAsJsonObject();
                if (event.get("channel").getAsString().equals(channel) && !event.get("name").getAsString().equals("subscription_count")) {
                    events.add(event);
                }
            }
            return events;
        }
    }

    private final HttpServer server;
    private final Map<String, Hook> hooks = new ConcurrentSkipListMap<>();

    Receiver(int port) throws IOException {
        server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 0);
        server.createContext("/", this::take);
        server.start();
    }

    void stop() {
        server.stop(0);
    }

    /** The hooks of one endpoint about a channel, once they hold so many events. */
    List<Hook> about(String path, String channel, int count) throws InterruptedException {
        Check.until(count + " events at " + path, () -> about(path, channel).stream().mapToInt(hook -> hook.events(channel).size()).sum() >= count);
        return about(path, channel);
    }

    private List<Hook> about(String path, String channel) {
        return hooks.values().stream().filter(hook -> hook.path.equals(path) && hook.body.contains('"' + channel + '"')).toList();
    }

    private void take(HttpExchange exchange) throws IOException {
        String body = new String(exchange.getRequestBody().readAllBytes(), StandardCharsets.UTF_8);
        HttpHeaders headers = HttpHeaders.of(exchange.getRequestHeaders(), (name, value) -> true);
        Hook hook = new Hook(exchange.getRequestURI().getPath(), headers, body);
        hooks.put(hook.path + " " + hook.header("webhook-id"), hook); // what comes again counts once
        exchange.sendResponseHeaders(204, -1);
        exchange.close();
    }
}
