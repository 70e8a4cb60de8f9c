-- People who sign in: accounts, what they may do for which tenant, sessions, one-time links, personal tokens. Of what
-- opens a door only a hash is stored. No tenant and no handler sees any of it.

CREATE TABLE circuit.people (
    id           uuid PRIMARY KEY,
    name         text NOT NULL UNIQUE CHECK (name <> ''),
    password     text,
    password_at  timestamptz,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by   text NOT NULL,
    signed_in_at timestamptz
);
COMMENT ON COLUMN circuit.people.password IS 'argon2id; null: signs in by a one-time link only';

CREATE TABLE circuit.memberships (
    person     uuid NOT NULL REFERENCES circuit.people ON DELETE CASCADE,
    scope      text NOT NULL,
    role       text NOT NULL CHECK (role IN ('viewer', 'operator', 'developer', 'owner')),
    granted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    granted_by text NOT NULL,
    PRIMARY KEY (person, scope)
);
COMMENT ON COLUMN circuit.memberships.scope IS 'a tenant, or *: all of them, those to come, too';

-- 256 random bits need no salt.
CREATE TABLE circuit.sessions (
    hash       bytea PRIMARY KEY,
    id         uuid NOT NULL UNIQUE,
    person     uuid NOT NULL REFERENCES circuit.people ON DELETE CASCADE,
    address    text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    ends_at    timestamptz NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX sessions_person ON circuit.sessions (person, created_at);
CREATE INDEX sessions_ends ON circuit.sessions (ends_at);

CREATE TABLE circuit.sign_in_links (
    hash    bytea PRIMARY KEY,
    person  uuid NOT NULL REFERENCES circuit.people ON DELETE CASCADE,
    ends_at timestamptz NOT NULL
);
CREATE INDEX sign_in_links_person ON circuit.sign_in_links (person);

CREATE TABLE circuit.person_tokens (
    id           uuid PRIMARY KEY,
    person       uuid NOT NULL REFERENCES circuit.people ON DELETE CASCADE,
    name         text NOT NULL,
    prefix       text NOT NULL,
    hash         bytea NOT NULL UNIQUE,
    most         text CHECK (most IN ('viewer', 'operator', 'developer', 'owner')),
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_used_at timestamptz,
    ends_at      timestamptz,
    UNIQUE (person, name)
) WITH (fillfactor = 80);
COMMENT ON COLUMN circuit.person_tokens.most IS 'it may do no more than this role; null: all that its person may';

-- Attempts to sign in that have not succeeded, by a hash of the name (whether or not there is such an account) and by
-- where they came from. An attempt is counted before the password is looked at, so that many at once gain nothing.
CREATE TABLE circuit.sign_in_attempts (
    kind    text NOT NULL CHECK (kind IN ('account', 'address')),
    key     bytea NOT NULL,
    n       integer NOT NULL DEFAULT 1,
    last_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    until   timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, key)
);
CREATE INDEX sign_in_attempts_last ON circuit.sign_in_attempts (last_at);

SELECT circuit.of_road('circuit.people');
SELECT circuit.of_road('circuit.memberships');
SELECT circuit.of_road('circuit.sessions');
SELECT circuit.of_road('circuit.sign_in_links');
SELECT circuit.of_road('circuit.person_tokens');
SELECT circuit.of_road('circuit.sign_in_attempts');
