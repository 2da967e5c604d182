package clients;

import java.time.Duration;
import java.time.Instant;
import java.util.Objects;
import java.util.function.BooleanSupplier;

/** Prints {@code ok - sentence} or {@code not ok - sentence: reason} per behaviour. */
final class Check {
    private static final Duration DEADLINE = Duration.ofSeconds(10);
    private boolean failed;

    interface Body {
        void run() throws Exception;
    }

    /** Runs one behaviour, which holds when {@code body} returns. */
    void that(String sentence, Body body) {
        try {
            body.run();
            System.out.println("ok - java: " + sentence);
        } catch (Exception | AssertionError e) {
            failed = true;
            System.out.println("not ok - java: " + sentence + ": " + e);
        }
    }

    int exitCode() {
        return failed ? 1 : 0;
    }

    static void equal(String what, Object actual, Object expected) {
        if (!Objects.equals(actual, expected)) {
            throw new AssertionError(what + " is " + actual + ", expected " + expected);
        }
    }

    /** Waits until the condition holds; complains after the deadline. */
    static void until(String what, BooleanSupplier condition) throws InterruptedException {
        Instant end = Instant.now().plus(DEADLINE);
        while (!condition.getAsBoolean()) {
            if (Instant.now().isAfter(end)) {
                throw new AssertionError("waited " + DEADLINE.toSeconds() + " s in vain for " + what);
            }
            Thread.sleep(5);
        }
    }
}
