"""The Python server library `pusher` 3.3.4, the client `Pysher` 1.0.8 and `standardwebhooks` 1.1.0, unmodified, against the
server under test."""

import base64
import hashlib
import json
import logging
import os
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from unittest import mock

import nacl.secret
import pusher
import pysher
import websocket
from pusher import errors
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from receiver import Receiver

DEADLINE = 10  # seconds


def required(name):
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: run this suite through `cargo xtask test`")
    return value


HOST, PORT = required("DUNLIN_TEST_HOST"), int(required("DUNLIN_TEST_PORT"))
APP = {name: required(f"DUNLIN_TEST_APP_{name.upper()}") for name in ("id", "key", "secret")}
DISABLED = {name: required(f"DUNLIN_TEST_DISABLED_APP_{name.upper()}") for name in ("id", "key", "secret")}
TOLD = {name: required(f"DUNLIN_TEST_WEBHOOKS_APP_{name.upper()}") for name in ("id", "key", "secret")}
MASTER_KEY = b"a master key of thirty-two bytes"

failed = []


@contextmanager
def behaviour(sentence):
    """Prints `ok` when the block ends, `not ok` with the reason when it raises."""
    try:
        yield
        print(f"ok - python: {sentence}", flush=True)
    except Exception as error:  # whatever goes wrong is this behaviour's failure
        failed.append(sentence)
        print(f"not ok - python: {sentence}: {type(error).__name__}: {error}", flush=True)


def equal(actual, expected):
    if actual != expected:
        raise AssertionError(f"got {actual!r}, expected {expected!r}")


def raises(kind, text, call):
    try:
        call()
    except kind as error:
        if text not in str(error):
            raise AssertionError(f"the error says {error}, expected {text!r}") from error
        return
    raise AssertionError(f"accepted, expected {kind.__name__}")


def library(app=None, **options):
    app = app or APP
    return pusher.Pusher(
        app_id=app["id"], key=app["key"], secret=options.pop("secret", app["secret"]), host=HOST, port=PORT, ssl=False,
        encryption_master_key_base64=base64.b64encode(MASTER_KEY).decode(), **options,
    )


class Subscriber:
    """One raw connection that remembers every frame."""

    def __init__(self, app=None):
        url = f"ws://{HOST}:{PORT}/app/{(app or APP)['key']}?protocol=7&client=python&version=1.0"
        self.socket = websocket.create_connection(url, timeout=DEADLINE)
        self.seen = []
        self.id = json.loads(self.expect("pusher:connection_established")["data"])["socket_id"]

    def send(self, event, data):
        self.socket.send(json.dumps({"event": event, "data": data}))

    def expect(self, event, channel=None):
        """The first frame with this event and channel, also one that came before."""
        for frame in self.seen:
            if frame["event"] == event and frame.get("channel") == channel:
                return frame
        while True:
            frame = json.loads(self.socket.recv())
            self.seen.append(frame)
            if frame["event"] == event and frame.get("channel") == channel:
                return frame

    def subscribe(self, channel, **authorization):
        authorization.pop("shared_secret", None)
        self.send("pusher:subscribe", {"channel": channel, **authorization})
        return json.loads(self.expect("pusher_internal:subscription_succeeded", channel)["data"])

    def data(self, event, channel):
        return [frame["data"] for frame in self.seen if frame["event"] == event and frame.get("channel") == channel]


client = library()
ann = Subscriber()
bob = Subscriber()

with behaviour("trigger delivers JSON with its spaces, text, and to several channels"):
    ann.subscribe("python")
    ann.subscribe("python-2")
    equal(client.trigger("python", "object", {"a": 1, "b": ["ü", None]}), {})
    equal(client.trigger(["python", "python-2"], "text", "just text"), {})
    equal(json.loads(ann.expect("object", "python")["data"]), {"a": 1, "b": ["ü", None]})
    equal(ann.expect("text", "python")["data"], "just text")
    equal(ann.expect("text", "python-2")["data"], "just text")

with behaviour("trigger with a socket id leaves that connection out"):
    bob.subscribe("python")
    client.trigger("python", "excluded", "x", ann.id)
    client.trigger("python", "fence", "x")
    for subscriber in (ann, bob):
        subscriber.expect("fence", "python")
    equal((ann.data("excluded", "python"), bob.data("excluded", "python")), ([], ["x"]))

with behaviour("trigger_batch keeps the order"):
    equal(client.trigger_batch([{"channel": "python", "name": "step", "data": str(i)} for i in range(10)]), {})
    client.trigger("python", "end", "x")
    ann.expect("end", "python")
    equal(ann.data("step", "python"), [str(i) for i in range(10)])

with behaviour("authenticate admits to private and presence channels"):
    equal(ann.subscribe("private-python", **client.authenticate("private-python", ann.id)), {})
    member = {"user_id": 10, "user_info": {"name": "Ann"}}
    state = ann.subscribe("presence-python", **client.authenticate("presence-python", ann.id, member))
    equal(state, {"presence": {"count": 1, "ids": ["10"], "hash": {"10": {"name": "Ann"}}}})

with behaviour("channels_info, channel_info and users_info read the state, although they sign a body they do not send"):
    equal(client.channels_info("presence-python", ["user_count"]), {"channels": {"presence-python": {"user_count": 1}}})
    equal("python" in client.channels_info()["channels"], True)
    equal(client.channel_info("presence-python", ["user_count", "subscription_count"]),
          {"occupied": True, "user_count": 1, "subscription_count": 1})
    equal(client.channel_info("python-nobody"), {"occupied": False})
    equal(client.users_info("presence-python"), {"users": [{"id": "10"}]})

with behaviour("an encrypted trigger arrives sealed and opens with the master key"):
    channel = "private-encrypted-python"
    ann.subscribe(channel, **client.authenticate(channel, ann.id))
    client.trigger(channel, "sealed", {"open": "sesame"})
    sealed = json.loads(ann.expect("sealed", channel)["data"])
    box = nacl.secret.SecretBox(hashlib.sha256(channel.encode() + MASTER_KEY).digest())
    plain = box.decrypt(base64.b64decode(sealed["ciphertext"]), base64.b64decode(sealed["nonce"]))
    equal(json.loads(plain), {"open": "sesame"})

with behaviour("authenticate_user signs in, send_to_user reaches the user, terminate_user_connections ends them"):
    carol = Subscriber()
    carol.send("pusher:signin", client.authenticate_user(carol.id, {"id": "python-carol"}))
    success = json.loads(carol.expect("pusher:signin_success")["data"])
    equal(json.loads(success["user_data"])["id"], "python-carol")
    carol.subscribe("#server-to-user-python-carol")
    client.send_to_user("python-carol", "mail", "hi")
    equal(carol.expect("mail", "#server-to-user-python-carol")["data"], "hi")
    equal(client.terminate_user_connections("python-carol"), {})
    equal(carol.expect("pusher:error")["data"]["code"], 4009)
    opcode, data = carol.socket.recv_data()
    equal((opcode, int.from_bytes(data[:2], "big")), (websocket.ABNF.OPCODE_CLOSE, 4009))

with behaviour("from_url makes a client that works"):
    # The library's pattern has no room for a port, so that it is given apart.
    made = pusher.Pusher.from_url(f"http://{APP['key']}:{APP['secret']}@{HOST}/apps/{APP['id']}", port=PORT)
    made.trigger("python", "from-url", "x")
    ann.expect("from-url", "python")

with behaviour("refusals become the library's own errors with the server's text"):
    raises(errors.PusherBadAuth, "Invalid signature", lambda: library(secret="wrong").trigger("python", "e", "x"))
    raises(errors.PusherBadAuth, "Unknown auth_key", lambda: library({**APP, "key": "unknown"}).channels_info())
    raises(errors.PusherForbidden, "", lambda: library(DISABLED).trigger("python", "e", "x"))
    raises(errors.PusherBadRequest, "reserved", lambda: client.trigger("python", "pusher:e", "x"))
    raises(errors.PusherBadRequest, "presence", lambda: client.channel_info("python", ["user_count"]))
    raises(errors.PusherBadStatus, "413", lambda: client.trigger("python", "e", "x" * 10_241))


def awaiting(event):
    if not event.wait(DEADLINE):
        raise TimeoutError(f"waited {DEADLINE} s in vain")


with behaviour("Pysher subscribes to public, private and presence channels and exchanges client events"):
    logging.getLogger("pysher.connection").setLevel(logging.CRITICAL)
    app = pysher.Pusher(APP["key"], custom_host=HOST, port=PORT, secure=False, secret=APP["secret"],
                        user_data={"user_id": "11", "user_info": {"name": "Pysher"}}, log_level=logging.CRITICAL)
    established, arrived, whispered = (threading.Event() for _ in range(3))
    app.connection.bind("pusher:connection_established", lambda _: established.set())
    app.connect()
    awaiting(established)
    heard = {}

    def hear(name, event):
        return lambda data: (heard.__setitem__(name, data), event.set())

    # Pysher knows the channel only after it has sent the subscription, so that it may miss the very first answer.
    presence = app.subscribe("presence-python")
    equal(json.loads(ann.expect("pusher_internal:member_added", "presence-python")["data"]), {"user_id": "11", "user_info": {"name": "Pysher"}})
    equal(sorted(user["id"] for user in client.users_info("presence-python")["users"]), ["10", "11"])
    presence.bind("client-hello", hear("hello", whispered))
    ann.socket.send(json.dumps({"event": "client-hello", "channel": "presence-python", "data": {"to": "Pysher"}}))
    awaiting(whispered)
    equal(json.loads(heard["hello"]), {"to": "Pysher"})
    presence.trigger("client-answer", {"from": "Pysher"})
    answer = ann.expect("client-answer", "presence-python")
    equal((json.loads(answer["data"]), answer["user_id"]), ({"from": "Pysher"}, "11"))

    public = app.subscribe("python")
    public.bind("published", hear("published", arrived))
    end = time.monotonic() + DEADLINE
    while client.channel_info("python", ["subscription_count"])["subscription_count"] < 3:
        if time.monotonic() > end:
            raise TimeoutError("Pysher never subscribed to the public channel")
    client.trigger("python", "published", {"n": 1})
    awaiting(arrived)
    equal(json.loads(heard["published"]), {"n": 1})
    app.disconnect(DEADLINE)
    ann.expect("pusher_internal:member_removed", "presence-python")


def whsec(secret):
    return "whsec_" + base64.b64encode(secret.encode()).decode()


def changed(text, index=-1):
    """The text with one character of it changed."""
    index %= len(text)
    return text[:index] + ("1" if text[index] == "0" else "0") + text[index + 1:]


def news(bodies):
    """The events of the channel, sorted, and without the counts, of which there are more or fewer."""
    events = [event for body in bodies for event in body["events"]
              if event["channel"] == HOOKED and event["name"] != "subscription_count"]
    return sorted(events, key=lambda event: (event["name"], event.get("user_id", "")))


HOOKED = f"presence-hooks-{time.time_ns()}"
NEW_SECRET, OLD_SECRET = required("DUNLIN_TEST_RECEIVER_SECRET"), required("DUNLIN_TEST_RECEIVER_PREVIOUS_SECRET")
receiver = Receiver(int(required("DUNLIN_TEST_RECEIVER_PORT")), DEADLINE)
told, expected, of_app, of_endpoint = library(TOLD), [], [], []

with behaviour("both endpoints are told when a channel is vacated"):
    members = {user: Subscriber(TOLD) for user in ("10", "11")}
    for user, member in members.items():
        member.subscribe(HOOKED, **told.authenticate(HOOKED, member.id, {"user_id": user}))
    members["10"].socket.send(json.dumps({"event": "client-typing", "channel": HOOKED, "data": {"at": 3}}))
    members["11"].expect("client-typing", HOOKED)
    for member in members.values():
        member.socket.close()
    expected = [
        {"name": "channel_occupied", "channel": HOOKED},
        {"name": "channel_vacated", "channel": HOOKED},
        {"name": "client_event", "channel": HOOKED, "event": "client-typing", "data": '{"at":3}', "socket_id": members["10"].id, "user_id": "10"},
        {"name": "member_added", "channel": HOOKED, "user_id": "10"},
        {"name": "member_added", "channel": HOOKED, "user_id": "11"},
        {"name": "member_removed", "channel": HOOKED, "user_id": "10"},
        {"name": "member_removed", "channel": HOOKED, "user_id": "11"},
    ]
    of_app, of_endpoint = (receiver.told(path, HOOKED, len(expected)) for path in ("/app-secret", "/own-secret"))


def validate(request, app=None, **other):
    sent = {"key": request.headers["x-pusher-key"], "signature": request.headers["x-pusher-signature"], "body": request.body}
    return library(app or TOLD).validate_webhook(**{**sent, **other})


def refuses(secret, body, headers):
    raises(WebhookVerificationError, "signature", lambda: Webhook(secret).verify(body, headers))


with behaviour("validate_webhook takes what is signed and reads its events"):
    for requests in (of_app, of_endpoint):
        equal(news(validate(request) for request in requests), expected)

with behaviour("validate_webhook refuses what is changed in body, signature or key"):
    equal(len(of_app) > 0, True)
    for request in of_app:
        equal(validate(request, body=changed(request.body, request.body.index(HOOKED) + len(HOOKED) - 1)), None)
        equal(validate(request, signature=changed(request.headers["x-pusher-signature"])), None)
        equal(validate(request, key=changed(TOLD["key"])), None)
        equal(validate(request, {**TOLD, "secret": "another"}), None)

with behaviour("standardwebhooks verifies with the app's secret where an endpoint has none"):
    equal(news(Webhook(whsec(TOLD["secret"])).verify(request.body, request.headers) for request in of_app), expected)
    for request in of_app:
        refuses(NEW_SECRET, request.body, request.headers)

with behaviour("standardwebhooks verifies with the endpoint's secret and with the one before it"):
    for secret in (NEW_SECRET, OLD_SECRET):
        equal(news(Webhook(secret).verify(request.body, request.headers) for request in of_endpoint), expected)
    for request in of_endpoint:
        refuses(whsec(TOLD["secret"]), request.body, request.headers)

with behaviour("standardwebhooks refuses what is changed"):
    equal(len(of_endpoint) > 0, True)
    for request in of_endpoint:
        headers = request.headers
        # Any of the signatures would do, so that both of them have to be wrong.
        signatures = " ".join(changed(signature, len("v1,")) for signature in headers["webhook-signature"].split(" "))
        for secret in (NEW_SECRET, OLD_SECRET):
            refuses(secret, changed(request.body, request.body.index(HOOKED) + len(HOOKED) - 1), headers)
            refuses(secret, request.body, {**headers, "webhook-id": changed(headers["webhook-id"])})
            refuses(secret, request.body, {**headers, "webhook-timestamp": changed(headers["webhook-timestamp"])})
            refuses(secret, request.body, {**headers, "webhook-signature": signatures})


@contextmanager
def later(seconds):
    """The clocks of both libraries are so far ahead."""
    now, moment = time.time() + seconds, datetime.now(timezone.utc) + timedelta(seconds=seconds)
    with mock.patch("time.time", return_value=now), mock.patch("standardwebhooks.webhooks.datetime", wraps=datetime) as clock:
        clock.now.return_value = moment
        yield


with behaviour("what is sent again by somebody else is refused after five minutes, by both libraries"):
    equal(len(of_endpoint) > 0, True)
    for request in of_endpoint:
        verify = Webhook(NEW_SECRET).verify
        with later(200):
            verify(request.body, request.headers)
            equal(validate(request) is None, False)
        with later(301):
            raises(WebhookVerificationError, "too old", lambda: verify(request.body, request.headers))
            equal(validate(request), None)

sys.exit(1 if failed else 0)
