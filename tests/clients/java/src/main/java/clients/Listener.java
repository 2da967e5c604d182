package clients;

import com.pusher.client.channel.PresenceChannelEventListener;
import com.pusher.client.channel.PrivateEncryptedChannelEventListener;
import com.pusher.client.channel.PusherEvent;
import com.pusher.client.channel.User;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CopyOnWriteArrayList;

/** Remembers everything that one channel of the Java client reports, as lines of text. */
final class Listener implements PresenceChannelEventListener, PrivateEncryptedChannelEventListener {
    final List<String> log = new CopyOnWriteArrayList<>();

    void await(String line) throws InterruptedException {
        try {
            Check.until(line, () -> log.contains(line));
        } catch (AssertionError e) {
            throw new AssertionError(e.getMessage() + "; saw " + log);
        }
    }

    @Override
    public void onEvent(PusherEvent event) {
        if (event.getEventName().equals("pusher:subscription_count")) {
            return; // how often it comes depends on what others do
        }
        String from = event.getUserId() == null ? "" : " from " + event.getUserId();
        log.add(event.getEventName() + " " + event.getData() + from);
    }

    @Override
    public void onSubscriptionSucceeded(String channel) {
        log.add("subscribed");
    }

    @Override
    public void onAuthenticationFailure(String message, Exception e) {
        log.add("refused " + message);
    }

    @Override
    public void onDecryptionFailure(String event, String reason) {
        log.add("sealed " + event + " " + reason);
    }

    @Override
    public void onUsersInformationReceived(String channel, Set<User> users) {
        log.add("users " + users.stream().map(User::getId).sorted().toList());
    }

    @Override
    public void userSubscribed(String channel, User user) {
        log.add("joined " + user.getId() + " " + user.getInfo());
    }

    @Override
    public void userUnsubscribed(String channel, User user) {
        log.add("left " + user.getId());
    }
}
