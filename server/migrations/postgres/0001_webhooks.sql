-- Deliveries of webhooks. Times are Unix milliseconds; flags are 0 or 1.

CREATE TABLE webhook_deliveries (
    -- Never given twice, so that it is an order.
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    app_id TEXT NOT NULL,
    endpoint_id TEXT NOT NULL,
    source TEXT NOT NULL CHECK (source IN ('events', 'presence', 'message')),
    created_at_ms BIGINT NOT NULL,
    -- 64 bits, whose number may be negative.
    lanes BIGINT NOT NULL,
    events BIGINT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'dead')),
    attempts BIGINT NOT NULL DEFAULT 0,
    next_at_ms BIGINT NOT NULL,
    -- Set unless pending.
    finished_at_ms BIGINT
);

-- What an endpoint is to be sent, in order.
CREATE INDEX webhook_deliveries_pending ON webhook_deliveries (app_id, endpoint_id, seq) WHERE state = 'pending';
-- When the first of them is due.
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (app_id, endpoint_id, next_at_ms) WHERE state = 'pending';
-- Dead letters, to be counted and listed.
CREATE INDEX webhook_deliveries_dead ON webhook_deliveries (app_id, seq) WHERE state = 'dead';
-- An app's, newest first.
CREATE INDEX webhook_deliveries_of_app ON webhook_deliveries (app_id, seq);
-- What has been kept long enough.
CREATE INDEX webhook_deliveries_finished ON webhook_deliveries (state, finished_at_ms) WHERE finished_at_ms IS NOT NULL;

CREATE TABLE webhook_attempts (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    delivery_seq BIGINT NOT NULL REFERENCES webhook_deliveries (seq) ON DELETE CASCADE,
    at_ms BIGINT NOT NULL,
    took_ms BIGINT NOT NULL,
    status BIGINT,
    note TEXT NOT NULL
);

CREATE INDEX webhook_attempts_of_delivery ON webhook_attempts (delivery_seq, seq);

-- Up to where the outbox has become deliveries, in the words of its reader.
CREATE TABLE webhook_cursors (
    name TEXT PRIMARY KEY,
    position TEXT NOT NULL
);

-- Who works on an endpoint, and how it does. A row for each that ever had a delivery.
CREATE TABLE webhook_endpoint_states (
    app_id TEXT NOT NULL,
    endpoint_id TEXT NOT NULL,
    worker TEXT,
    -- After it, others may take the claim.
    until_ms BIGINT NOT NULL DEFAULT 0,
    -- Whose turn was longest ago is next.
    claimed_at_ms BIGINT NOT NULL DEFAULT 0,
    failing_since_ms BIGINT,
    disabled_at_ms BIGINT,
    last_at_ms BIGINT,
    last_status BIGINT,
    last_note TEXT,
    PRIMARY KEY (app_id, endpoint_id)
);

CREATE INDEX webhook_endpoint_states_turn ON webhook_endpoint_states (claimed_at_ms);
CREATE INDEX webhook_endpoint_states_worker ON webhook_endpoint_states (worker) WHERE worker IS NOT NULL;
CREATE INDEX webhook_endpoint_states_disabled ON webhook_endpoint_states (app_id, endpoint_id)
    WHERE disabled_at_ms IS NOT NULL;

CREATE TABLE webhook_endpoints (
    app_id TEXT NOT NULL,
    id TEXT NOT NULL,
    -- JSON.
    settings TEXT NOT NULL,
    enabled BIGINT NOT NULL CHECK (enabled IN (0, 1)),
    version BIGINT NOT NULL,
    created_at_ms BIGINT NOT NULL,
    updated_at_ms BIGINT NOT NULL,
    PRIMARY KEY (app_id, id)
);

-- One row, whose number grows with each change of an endpoint.
CREATE TABLE webhook_endpoint_changes (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    version BIGINT NOT NULL
);

INSERT INTO webhook_endpoint_changes (only_row, version) VALUES (1, 0);
