-- The registry: the tenants and the revoked keys that all replicas obey, and a log of every change.
-- These tables contain no tasks, so they have no row security. On Citus they are reference tables.

CREATE TABLE {schema}.allowed_tenants (
    -- Neither the nil GUID nor the tenant of personal accounts is an organization.
    tenant_id uuid PRIMARY KEY CHECK (tenant_id NOT IN (
        '00000000-0000-0000-0000-000000000000', '9188040d-6c67-4c5b-b112-36a304b66dad'
    )),
    name text CHECK (char_length(name) BETWEEN 1 AND 200),
    status text NOT NULL CHECK (status IN ('active', 'suspended')),
    max_tasks bigint CHECK (max_tasks BETWEEN 1 AND 4294967295),
    rate_limit bigint CHECK (rate_limit BETWEEN 1 AND 4294967295),
    note text,
    added_at timestamptz NOT NULL DEFAULT now(),
    added_by text NOT NULL,
    status_since timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE {schema}.revoked_keys (
    key_id text PRIMARY KEY CHECK (char_length(key_id) BETWEEN 1 AND 128),
    revoked_at timestamptz NOT NULL DEFAULT now(),
    revoked_by text NOT NULL,
    reason text
);

-- Replicas poll the largest version. Its order is that of the commits, because changes wait for each
-- other. Otherwise a replica could miss a change that commits after a later one.
CREATE TABLE {schema}.registry_log (
    version bigint PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    by text NOT NULL,
    action text NOT NULL,
    subject text NOT NULL
);

-- The log is append-only, for its owner too.
REVOKE UPDATE, DELETE, TRUNCATE ON {schema}.registry_log FROM PUBLIC, CURRENT_USER;

CREATE OR REPLACE FUNCTION {schema}.lock_registry() RETURNS void
LANGUAGE sql AS $$ SELECT pg_advisory_xact_lock(7307199712345022) $$;

CREATE OR REPLACE FUNCTION {schema}.log_change(in_action text, in_subject text, in_by text)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO {schema}.registry_log (version, action, subject, by)
    SELECT coalesce(max(version), 0) + 1, in_action, in_subject, in_by FROM {schema}.registry_log
$$;

-- Adds a tenant, or changes the members that are not NULL. '' and 0 remove a value.
CREATE OR REPLACE FUNCTION {schema}.put_tenant(
    in_id uuid, in_name text, in_max_tasks bigint, in_rate_limit bigint, in_note text, in_by text
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    old {schema}.allowed_tenants;
    new {schema}.allowed_tenants;
BEGIN
    PERFORM {schema}.lock_registry();
    SELECT * INTO old FROM {schema}.allowed_tenants AS t WHERE t.tenant_id = in_id;
    new := old;
    new.name := nullif(coalesce(in_name, old.name), '');
    new.max_tasks := nullif(coalesce(in_max_tasks, old.max_tasks), 0);
    new.rate_limit := nullif(coalesce(in_rate_limit, old.rate_limit), 0);
    new.note := nullif(coalesce(in_note, old.note), '');
    IF old.tenant_id IS NULL THEN
        INSERT INTO {schema}.allowed_tenants
            (tenant_id, name, status, max_tasks, rate_limit, note, added_by)
            VALUES (in_id, new.name, 'active', new.max_tasks, new.rate_limit, new.note, in_by);
        PERFORM {schema}.log_change('tenant added', in_id::text, in_by);
        RETURN 'added';
    ELSIF new IS DISTINCT FROM old THEN
        UPDATE {schema}.allowed_tenants AS t SET name = new.name, max_tasks = new.max_tasks,
            rate_limit = new.rate_limit, note = new.note WHERE t.tenant_id = in_id;
        PERFORM {schema}.log_change('tenant changed', in_id::text, in_by);
        RETURN 'changed';
    ELSE
        RETURN 'unchanged';
    END IF;
END $$;

-- A tenant that only the settings list can be suspended too.
CREATE OR REPLACE FUNCTION {schema}.set_tenant_status(in_id uuid, in_status text, in_by text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    old text;
BEGIN
    PERFORM {schema}.lock_registry();
    SELECT t.status INTO old FROM {schema}.allowed_tenants AS t WHERE t.tenant_id = in_id;
    IF old = in_status THEN
        RETURN 'unchanged';
    ELSIF old IS NULL AND in_status = 'active' THEN
        RETURN 'unknown';
    END IF;
    INSERT INTO {schema}.allowed_tenants (tenant_id, status, added_by)
        VALUES (in_id, in_status, in_by)
        ON CONFLICT (tenant_id) DO UPDATE SET status = excluded.status, status_since = now();
    PERFORM {schema}.log_change('tenant ' || in_status, in_id::text, in_by);
    RETURN 'changed';
END $$;

CREATE OR REPLACE FUNCTION {schema}.remove_tenant(in_id uuid, in_by text)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.lock_registry();
    DELETE FROM {schema}.allowed_tenants AS t WHERE t.tenant_id = in_id;
    IF NOT FOUND THEN
        RETURN 'unknown';
    END IF;
    PERFORM {schema}.log_change('tenant removed', in_id::text, in_by);
    RETURN 'changed';
END $$;

CREATE OR REPLACE FUNCTION {schema}.revoke_key(in_key_id text, in_reason text, in_by text)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.lock_registry();
    INSERT INTO {schema}.revoked_keys (key_id, reason, revoked_by)
        VALUES (in_key_id, in_reason, in_by) ON CONFLICT (key_id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'unchanged';
    END IF;
    PERFORM {schema}.log_change('key revoked', in_key_id, in_by);
    RETURN 'changed';
END $$;

CREATE OR REPLACE FUNCTION {schema}.restore_key(in_key_id text, in_by text)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.lock_registry();
    DELETE FROM {schema}.revoked_keys AS k WHERE k.key_id = in_key_id;
    IF NOT FOUND THEN
        RETURN 'unchanged';
    END IF;
    PERFORM {schema}.log_change('key restored', in_key_id, in_by);
    RETURN 'changed';
END $$;

CREATE OR REPLACE FUNCTION {schema}.count_tasks(in_tenant uuid) RETURNS TABLE (task_count bigint)
LANGUAGE plpgsql SECURITY INVOKER AS $$
BEGIN
    PERFORM set_config('app.tenant', in_tenant::text, true);
    RETURN QUERY SELECT t.task_count FROM {schema}.tenants AS t WHERE t.tenant_id = in_tenant;
END $$;

-- Records that a tenant's tasks were erased.
CREATE OR REPLACE FUNCTION {schema}.log_erasure(in_id uuid, in_count bigint, in_by text)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM {schema}.lock_registry();
    PERFORM {schema}.log_change('tasks erased: ' || in_count, in_id::text, in_by);
    RETURN 'changed';
END $$;
