package clients;

import static clients.Check.equal;
import static clients.Check.until;
import static clients.Main.required;

import clients.Receiver.Hook;
import com.pusher.client.Pusher;
import com.pusher.rest.data.PresenceUser;
import com.pusher.rest.data.Validity;
import com.standardwebhooks.Webhook;
import com.standardwebhooks.exceptions.WebhookVerificationException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.function.UnaryOperator;
import java.util.regex.Pattern;

/** What the server tells a receiver, judged by pusher-http-java and by the library of Standard Webhooks. */
final class Webhooks {
    private static final String KEY = required("DUNLIN_TEST_WEBHOOKS_APP_KEY");
    private static final String SECRET = required("DUNLIN_TEST_WEBHOOKS_APP_SECRET");
    private static final String APP_SECRET = "whsec_" + Base64.getEncoder().encodeToString(SECRET.getBytes(StandardCharsets.UTF_8));
    private static final List<String> OWN_SECRETS =
        List.of(required("DUNLIN_TEST_RECEIVER_SECRET"), required("DUNLIN_TEST_RECEIVER_PREVIOUS_SECRET"));

    private final Check check;
    private final String channel = "presence-hooks-" + System.nanoTime();
    private final com.pusher.rest.Pusher library = Main.library(required("DUNLIN_TEST_WEBHOOKS_APP_ID"), KEY, SECRET);
    private List<String> expected = List.of();
    private List<Hook> ofApp = List.of();
    private List<Hook> ofEndpoint = List.of();

    Webhooks(Check check) {
        this.check = check;
    }

    void run() {
        check.that("both endpoints are told when a channel is vacated", () -> {
            Receiver receiver = new Receiver(Integer.parseInt(required("DUNLIN_TEST_RECEIVER_PORT")));
            try {
                expected = happen();
                ofApp = receiver.about("/app-secret", channel, expected.size());
                ofEndpoint = receiver.about("/own-secret", channel, expected.size());
            } finally {
                receiver.stop();
            }
            equal("events", events(ofApp), expected);
            equal("events", events(ofEndpoint), expected);
        });

        check.that("validateWebhookSignature takes what is signed", () -> {
            for (List<Hook> hooks : List.of(ofApp, ofEndpoint)) {
                equal("validity", validities(library, hooks), List.of(Validity.VALID));
            }
        });

        check.that("validateWebhookSignature refuses what is changed in body, signature or key", () -> {
            equal("body", validities(library, each(ofApp, this::withChangedBody)), List.of(Validity.INVALID));
            equal("signature", validities(library, each(ofApp, hook -> withChanged(hook, "X-Pusher-Signature"))), List.of(Validity.INVALID));
            equal("key", validities(library, each(ofApp, hook -> withChanged(hook, "X-Pusher-Key"))), List.of(Validity.SIGNED_WITH_WRONG_KEY));
            equal("secret", validities(Main.library("1", KEY, "another"), ofApp), List.of(Validity.INVALID));
        });

        check.that("standardwebhooks verifies with the app's secret where an endpoint has none", () -> {
            equal("verified", verdicts(ofApp, APP_SECRET), List.of(true));
            equal("by another secret", verdicts(ofApp, OWN_SECRETS.get(0)), List.of(false));
        });

        check.that("standardwebhooks verifies with the endpoint's secret and with the one before it", () -> {
            for (String secret : OWN_SECRETS) {
                equal("verified", verdicts(ofEndpoint, secret), List.of(true));
            }
            equal("by the app's secret", verdicts(ofEndpoint, APP_SECRET), List.of(false));
        });

        check.that("standardwebhooks refuses what is changed", () -> {
            for (String secret : OWN_SECRETS) {
                equal("body", verdicts(each(ofEndpoint, this::withChangedBody), secret), List.of(false));
                equal("id", verdicts(each(ofEndpoint, hook -> withChanged(hook, "webhook-id")), secret), List.of(false));
                equal("timestamp", verdicts(each(ofEndpoint, hook -> withChanged(hook, "webhook-timestamp")), secret), List.of(false));
                equal("signature", verdicts(each(ofEndpoint, Webhooks::withChangedSignatures), secret), List.of(false));
            }
        });
    }

    /** Two users come and go, and one of them sends something. Returns what a receiver has to be told, sorted. */
    private List<String> happen() throws InterruptedException {
        Pusher ann = client("10");
        Pusher bob = client("11");
        Listener mine = new Listener();
        Listener theirs = new Listener();
        var presence = ann.subscribePresence(channel, mine);
        mine.await("users [10]");
        bob.subscribePresence(channel, theirs, "client-typing");
        theirs.await("users [10, 11]");
        presence.trigger("client-typing", "{\"at\":3}");
        theirs.await("client-typing {\"at\":3} from 10");
        String socket = ann.getConnection().getSocketId();
        ann.disconnect();
        bob.disconnect();
        return List.of(
            "channel_occupied",
            "channel_vacated",
            "client_event 10 client-typing {\"at\":3} " + socket,
            "member_added 10",
            "member_added 11",
            "member_removed 10",
            "member_removed 11");
    }

    private Pusher client(String user) throws InterruptedException {
        var options = Main.options().setChannelAuthorizer((name, socket) -> library.authenticate(socket, name, new PresenceUser(user)));
        Pusher client = new Pusher(KEY, options);
        client.connect();
        until("the connection", () -> client.getConnection().getSocketId() != null);
        return client;
    }

    private List<String> events(List<Hook> hooks) {
        List<String> events = new ArrayList<>();
        for (Hook hook : hooks) {
            for (var event : hook.events(channel)) {
                StringBuilder text = new StringBuilder(event.get("name").getAsString());
                for (String name : List.of("user_id", "event", "data", "socket_id")) {
                    if (event.has(name)) {
                        text.append(' ').append(event.get(name).getAsString());
                    }
                }
                events.add(text.toString());
            }
        }
        return events.stream().sorted().toList();
    }

    /** What the library says of the hooks, each verdict once. */
    private static List<Validity> validities(com.pusher.rest.Pusher library, List<Hook> hooks) {
        return hooks.stream()
            .map(hook -> library.validateWebhookSignature(hook.header("X-Pusher-Key"), hook.header("X-Pusher-Signature"), hook.body()))
            .distinct()
            .toList();
    }

    /** Whether the hooks verify, each verdict once. */
    private static List<Boolean> verdicts(List<Hook> hooks, String secret) {
        return hooks.stream().map(hook -> {
            try {
                new Webhook(secret).verify(hook.body(), hook.headers());
                return true;
            } catch (WebhookVerificationException e) {
                return false;
            }
        }).distinct().toList();
    }

    private static List<Hook> each(List<Hook> hooks, UnaryOperator<Hook> change) {
        return hooks.stream().map(change).toList();
    }

    /** The text with its last character changed. */
    private static String changed(String text) {
        int last = text.length() - 1;
        return text.substring(0, last) + (text.charAt(last) == '0' ? '1' : '0');
    }

    /** Another letter in the channel's name: the body is JSON as before. */
    private Hook withChangedBody(Hook hook) {
        return hook.withBody(hook.body().replaceFirst(channel, changed(channel)));
    }

    private static Hook withChanged(Hook hook, String header) {
        return hook.with(header, changed(hook.header(header)));
    }

    /** One wrong character in each signature, as any of them would do. */
    private static Hook withChangedSignatures(Hook hook) {
        String signatures = Pattern.compile("v1,(.)")
            .matcher(hook.header("webhook-signature"))
            .replaceAll(found -> "v1," + changed(found.group(1)));
        return hook.with("webhook-signature", signatures);
    }
}
