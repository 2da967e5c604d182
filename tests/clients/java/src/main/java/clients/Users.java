package clients;

import com.pusher.rest.SignatureUtil;

/** Signs a user in, which the Java server library has no call for. */
final class Users {
    private Users() {}

    static String authenticate(String key, String secret, String socket, String user) {
        String signature = SignatureUtil.sign(socket + "::user::" + user, secret);
        return "{\"auth\":\"" + key + ":" + signature + "\",\"user_data\":\"" + user.replace("\"", "\\\"") + "\"}";
    }
}
