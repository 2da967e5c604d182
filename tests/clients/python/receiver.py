"""The customer's side of webhooks: takes every request and remembers it as it came."""

import json
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Request:
    path: str
    headers: dict  # by their names in lower case
    body: str


class Receiver:
    """Listens from the beginning until the program ends."""

    def __init__(self, port, deadline):
        self.deadline = deadline  # seconds
        self.requests = {}
        self.arrived = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                with receiver.arrived:
                    # What comes again counts once.
                    receiver.requests[self.path, headers["webhook-id"]] = Request(self.path, headers, body)
                    receiver.arrived.notify_all()
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def told(self, path, channel, count):
        """The requests about the channel to one endpoint, once there are so many events besides counts."""
        with self.arrived:
            if not self.arrived.wait_for(lambda: len(self._events(path, channel)) >= count, self.deadline):
                raise TimeoutError(f"waited {self.deadline} s in vain for {count} events; saw {self._events(path, channel)}")
            return self._about(path, channel)

    def _about(self, path, channel):
        return [request for request in self.requests.values() if request.path == path and f'"{channel}"' in request.body]

    def _events(self, path, channel):
        events = (event for request in self._about(path, channel) for event in json.loads(request.body)["events"])
        return [event for event in events if event["channel"] == channel and event["name"] != "subscription_count"]
