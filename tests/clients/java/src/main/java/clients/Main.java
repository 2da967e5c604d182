package clients;

import static clients.Check.equal;
import static clients.Check.until;

import com.pusher.client.Pusher;
import com.pusher.client.PusherOptions;
import com.pusher.client.connection.ConnectionEventListener;
import com.pusher.client.connection.ConnectionState;
import com.pusher.client.connection.ConnectionStateChange;
import com.pusher.rest.PusherAsync;
import com.pusher.rest.data.Event;
import com.pusher.rest.data.PresenceUser;
import com.pusher.rest.data.Result;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.logging.LogManager;

/** pusher-http-java 1.3.4 triggers and authorizes, pusher-java-client 2.4.4 (protocol 5) subscribes; both unmodified. */
public final class Main {
    private static final String HOST = required("DUNLIN_TEST_HOST");
    private static final int PORT = Integer.parseInt(required("DUNLIN_TEST_PORT"));
    private static final String ID = required("DUNLIN_TEST_APP_ID");
    private static final String KEY = required("DUNLIN_TEST_APP_KEY");
    private static final String SECRET = required("DUNLIN_TEST_APP_SECRET");
    private static final String MASTER_KEY = Base64.getEncoder().encodeToString("a master key of thirty-two bytes".getBytes());

    private final Check check = new Check();
    private final com.pusher.rest.Pusher library = library(SECRET);
    private final com.pusher.rest.Pusher kept =
        library(required("DUNLIN_TEST_HISTORY_APP_ID"), required("DUNLIN_TEST_HISTORY_APP_KEY"), required("DUNLIN_TEST_HISTORY_APP_SECRET"));
    private final List<String> connectionErrors = new CopyOnWriteArrayList<>();

    public static void main(String[] arguments) {
        LogManager.getLogManager().reset(); // the client logs every refusal that is provoked here
        System.exit(new Main().run());
    }

    private int run() {
        Pusher ann = client(KEY, "10");
        Pusher bob = client(KEY, "11");

        check.that("the client connects and is told its socket id", () -> {
            for (Pusher client : List.of(ann, bob)) {
                client.connect(errors());
                until("the connection", () -> client.getConnection().getState() == ConnectionState.CONNECTED);
                equal("form of " + client.getConnection().getSocketId(), client.getConnection().getSocketId().matches("\\d+\\.\\d+"), true);
            }
        });

        check.that("a public channel receives objects, text and many-channel triggers", () -> {
            Listener one = subscribe(ann, "java");
            Listener two = subscribe(ann, "java-2");
            ok(library.trigger("java", "object", Map.of("a", 1)), "{}");
            one.await("object {\"a\":1}");
            ok(library.trigger(List.of("java", "java-2"), "text", "just text"), "{}");
            one.await("text \"just text\"");
            two.await("text \"just text\"");
        });

        check.that("a trigger with a socket id leaves that connection out", () -> {
            Listener mine = subscribe(ann, "java-excluded");
            Listener theirs = subscribe(bob, "java-excluded");
            ok(library.trigger("java-excluded", "one", "x", ann.getConnection().getSocketId()), "{}");
            ok(library.trigger(List.of("java-excluded"), "fence", "x"), "{}");
            mine.await("fence \"x\"");
            theirs.await("fence \"x\"");
            equal("what the excluded saw", mine.log, List.of("subscribed", "fence \"x\""));
            equal("what the other saw", theirs.log, List.of("subscribed", "one \"x\"", "fence \"x\""));
        });

        check.that("a batch keeps its order", () -> {
            Listener listener = subscribe(ann, "java-batch");
            ok(library.trigger(List.of(new Event("java-batch", "a", "1"), new Event("java-batch", "b", "2"), new Event("java-batch", "c", "3"))), "{}");
            listener.await("c \"3\"");
            equal("what arrived", listener.log, List.of("subscribed", "a \"1\"", "b \"2\"", "c \"3\""));
        });

        check.that("private channels carry client events, without an echo", () -> {
            Listener mine = new Listener();
            Listener theirs = new Listener();
            var channel = ann.subscribePrivate("private-java", mine, "client-typing", "fence");
            bob.subscribePrivate("private-java", theirs, "client-typing", "fence");
            mine.await("subscribed");
            theirs.await("subscribed");
            channel.trigger("client-typing", "{\"who\":\"ann\"}");
            theirs.await("client-typing {\"who\":\"ann\"}");
            ok(library.trigger("private-java", "fence", "x"), "{}");
            mine.await("fence \"x\"");
            equal("what the sender saw", mine.log, List.of("subscribed", "fence \"x\""));
        });

        check.that("presence channels know their users, also those with a number for an id", () -> {
            Listener mine = new Listener();
            Listener theirs = new Listener();
            var channel = ann.subscribePresence("presence-java", mine);
            mine.await("users [10]");
            var other = bob.subscribePresence("presence-java", theirs, "client-wave");
            theirs.await("users [10, 11]");
            mine.await("joined 11 {\"name\":\"user 11\"}");
            equal("me", channel.getMe().getId(), "10");
            channel.trigger("client-wave", "{}");
            theirs.await("client-wave {} from 10");
            ok(library.get("/channels/presence-java/users"), "{\"users\":[{\"id\":\"10\"},{\"id\":\"11\"}]}");
            bob.unsubscribe(other.getName());
            mine.await("left 11");
        });

        check.that("encrypted channels are decrypted by the client", () -> {
            Listener listener = new Listener();
            ann.subscribePrivateEncrypted("private-encrypted-java", listener, "sealed");
            listener.await("subscribed");
            ok(library.trigger("private-encrypted-java", "sealed", Map.of("open", "sesame")), "{}");
            listener.await("sealed {\"open\":\"sesame\"}");
        });

        check.that("a user signs in and is reached as a user", () -> {
            Listener listener = new Listener();
            bob.user().bind("mail", listener);
            bob.signin();
            until("the sign-in", () -> "java-11".equals(bob.user().userId()));
            until("the user's channel", () -> {
                ok(library.post("/events", "{\"name\":\"mail\",\"data\":\"hi\",\"channels\":[\"#server-to-user-java-11\"]}"), "{}");
                return listener.log.contains("mail hi");
            });
        });

        check.that("on channels with history a client that knows nothing of it gets what it bound to, and no more", () -> {
            PusherOptions options = options().setChannelAuthorizer((channel, socket) -> kept.authenticate(socket, channel));
            Pusher client = new Pusher(required("DUNLIN_TEST_HISTORY_APP_KEY"), options);
            client.connect(errors());
            Listener open = new Listener();
            Listener sealed = new Listener();
            client.subscribe("java", open, "one", "client-x", "fence");
            client.subscribePrivateEncrypted("private-encrypted-java", sealed, "one", "fence");
            open.await("subscribed");
            sealed.await("subscribed");
            ok(kept.trigger("java", "one", "x", client.getConnection().getSocketId()), "{}");
            for (String channel : List.of("java", "private-encrypted-java")) {
                ok(kept.trigger(channel, "one", "y"), "{}");
                ok(kept.trigger(channel, "fence", "x"), "{}");
            }
            for (Listener listener : List.of(open, sealed)) {
                listener.await("fence \"x\"");
                equal("what arrived", listener.log, List.of("subscribed", "one \"y\"", "fence \"x\""));
            }
            client.disconnect();
        });

        check.that("queries read channels, counts and an empty channel", () -> {
            ok(library.get("/channels", Map.of("filter_by_prefix", "presence-java", "info", "user_count")), "{\"channels\":{\"presence-java\":{\"user_count\":1}}}");
            ok(library.get("/channels/java-nobody"), "{\"occupied\":false}");
            ok(library.get("/channels/java-2", Map.of("info", "subscription_count")), "{\"occupied\":true,\"subscription_count\":1}");
        });

        check.that("the asynchronous library works, too", () -> {
            try (PusherAsync async = new PusherAsync(ID, KEY, SECRET)) {
                async.setHost(HOST + ":" + PORT);
                ok(async.get("/channels/java-nobody").get(10, TimeUnit.SECONDS), "{\"occupied\":false}");
                ok(async.trigger("java", "async", "x").get(10, TimeUnit.SECONDS), "{}");
            }
        });

        check.that("a library made from a URL works", () -> {
            try (var made = new com.pusher.rest.Pusher("http://" + KEY + ":" + SECRET + "@" + HOST + ":" + PORT + "/apps/" + ID)) {
                ok(made.trigger("java", "from-url", "x"), "{}");
            }
        });

        check.that("refusals arrive as status and text", () -> {
            Result wrong = library("wrong").trigger("java", "e", "x");
            equal("status", wrong.getStatus(), Result.Status.AUTHENTICATION_ERROR);
            equal("text names the signature: " + wrong.getMessage(), wrong.getMessage().contains("Invalid signature"), true);
            equal("status", library.trigger("java", "pusher:e", "x").getHttpStatus(), 400);
            equal("status", library.trigger("java", "e", "x".repeat(10_241)).getHttpStatus(), 413);
        });

        check.that("a plain request of the JDK's client, which offers h2c, is an ordinary request", () -> {
            HttpClient http = HttpClient.newHttpClient();
            equal("version it prefers", http.version(), HttpClient.Version.HTTP_2);
            URI get = library.signedUri("GET", "/apps/" + ID + "/channels/java-nobody", null);
            HttpResponse<String> read = http.send(HttpRequest.newBuilder(get).build(), HttpResponse.BodyHandlers.ofString());
            equal("answer", read.statusCode() + " " + read.body(), "200 {\"occupied\":false}");
            String body = "{\"name\":\"h2c\",\"channel\":\"java\",\"data\":\"x\"}";
            URI post = library.signedUri("POST", "/apps/" + ID + "/events", body);
            for (int i = 0; i < 3; i++) {
                HttpResponse<String> written = http.send(
                    HttpRequest.newBuilder(post).header("Content-Type", "application/json").POST(HttpRequest.BodyPublishers.ofString(body)).build(),
                    HttpResponse.BodyHandlers.ofString());
                equal("answer", written.statusCode() + " " + written.body(), "200 {}");
            }
        });

        check.that("an unknown key ends in the state disconnected with code 4001", () -> {
            Pusher stranger = client(KEY + "-unknown", "12");
            stranger.connect(errors());
            until("the refusal", () -> connectionErrors.stream().anyMatch(error -> error.startsWith("4001 ")));
            until("the end", () -> stranger.getConnection().getState() == ConnectionState.DISCONNECTED);
        });

        check.that("a forged signature is refused and the connection stays", () -> {
            PusherOptions options = options().setChannelAuthorizer((channel, socket) -> "{\"auth\":\"" + KEY + ":" + "0".repeat(64) + "\"}");
            Pusher forger = new Pusher(KEY, options);
            forger.connect(errors());
            until("the connection", () -> forger.getConnection().getState() == ConnectionState.CONNECTED);
            forger.subscribePrivate("private-java", new Listener());
            until("the refusal", () -> connectionErrors.stream().anyMatch(error -> error.contains("Invalid signature")));
            equal("state", forger.getConnection().getState(), ConnectionState.CONNECTED);
            forger.disconnect();
        });

        ann.disconnect();
        bob.disconnect();
        new Webhooks(check).run();
        return check.exitCode();
    }

    private Pusher client(String key, String user) {
        PusherOptions options = options()
            .setChannelAuthorizer((channel, socket) -> channel.startsWith("presence-")
                ? library.authenticate(socket, channel, new PresenceUser(Integer.parseInt(user), Map.of("name", "user " + user)))
                : library.authenticate(socket, channel))
            .setUserAuthenticator(socket -> Users.authenticate(KEY, SECRET, socket, "{\"id\":\"java-" + user + "\"}"));
        return new Pusher(key, options);
    }

    static PusherOptions options() {
        return new PusherOptions().setHost(HOST).setWsPort(PORT).setUseTLS(false);
    }

    private static com.pusher.rest.Pusher library(String secret) {
        return library(ID, KEY, secret);
    }

    static com.pusher.rest.Pusher library(String id, String key, String secret) {
        var library = new com.pusher.rest.Pusher(id, key, secret, MASTER_KEY);
        library.setHost(HOST + ":" + PORT);
        return library;
    }

    private static Listener subscribe(Pusher client, String channel) throws InterruptedException {
        Listener listener = new Listener();
        client.subscribe(channel, listener).bindGlobal(listener);
        listener.await("subscribed");
        return listener;
    }

    private ConnectionEventListener errors() {
        return new ConnectionEventListener() {
            @Override
            public void onConnectionStateChange(ConnectionStateChange change) {}

            @Override
            public void onError(String message, String code, Exception e) {
                connectionErrors.add(code + " " + message);
            }
        };
    }

    private static void ok(Result result, String body) {
        equal("answer", result.getHttpStatus() + " " + result.getMessage(), "200 " + body);
    }

    static String required(String name) {
        String value = System.getenv(name);
        if (value == null) {
            System.err.println(name + " is not set: run this suite through `cargo xtask test`");
            System.exit(2);
        }
        return value;
    }
}
