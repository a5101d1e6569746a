-- Idempotency keys: a client may repeat the creation of a task, and the task is created once.

CREATE TABLE {schema}.idempotency_keys (
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    key text NOT NULL CHECK (char_length(key) BETWEEN 1 AND 255),
    request_digest bytea NOT NULL,
    task_id bigint NOT NULL,
    owner_name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, user_id, key)
);

CREATE INDEX idempotency_keys_by_age ON {schema}.idempotency_keys (tenant_id, created_at);

ALTER TABLE {schema}.idempotency_keys ENABLE ROW LEVEL SECURITY;

ALTER TABLE {schema}.idempotency_keys FORCE ROW LEVEL SECURITY;

CREATE POLICY keys_of_setting ON {schema}.idempotency_keys
    USING (tenant_id = current_setting('app.tenant')::uuid);

-- Like create_task, with an optional key, which is remembered in the transaction that creates the task.
-- Requests of a tenant wait for each other at the tenant's row, so two with the same key cannot both
-- create a task. Returns no row if the tenant is full and the key is new.
CREATE OR REPLACE FUNCTION {schema}.add_task(
    in_tenant uuid, in_owner uuid, in_owner_name text, in_title text, in_completed boolean,
    in_max_tasks bigint, in_key text, in_digest bytea
) RETURNS TABLE (id bigint, task_count bigint, first_owner_name text, outcome text)
LANGUAGE plpgsql SECURITY INVOKER AS $$
DECLARE
    new_id bigint;
    new_count bigint;
    first {schema}.idempotency_keys;
BEGIN
    PERFORM set_config('app.tenant', in_tenant::text, true);
    INSERT INTO {schema}.tenants AS t (tenant_id, last_task_id, task_count, max_tasks)
        VALUES (in_tenant, 1, 1, in_max_tasks)
        ON CONFLICT (tenant_id) DO UPDATE SET
            last_task_id = t.last_task_id + 1, task_count = t.task_count + 1,
            max_tasks = excluded.max_tasks
            WHERE t.task_count < excluded.max_tasks
        RETURNING t.last_task_id, t.task_count INTO new_id, new_count;
    IF in_key IS NOT NULL THEN
        SELECT * INTO first FROM {schema}.idempotency_keys AS k
            WHERE k.tenant_id = in_tenant AND k.user_id = in_owner AND k.key = in_key
                AND k.created_at > now() - interval '24 hours';
    END IF;
    IF first.task_id IS NOT NULL THEN
        IF new_id IS NOT NULL THEN
            UPDATE {schema}.tenants AS t
                SET last_task_id = t.last_task_id - 1, task_count = t.task_count - 1
                WHERE t.tenant_id = in_tenant;
        END IF;
        RETURN QUERY SELECT first.task_id, coalesce(new_count - 1, in_max_tasks), first.owner_name,
            CASE WHEN first.request_digest = in_digest THEN 'replayed' ELSE 'other_request' END;
    ELSIF new_id IS NOT NULL THEN
        INSERT INTO {schema}.tasks (tenant_id, id, user_id, owner_name, title, completed)
            VALUES (in_tenant, new_id, in_owner, in_owner_name, in_title, in_completed);
        IF in_key IS NOT NULL THEN
            -- An expired key may still be there.
            INSERT INTO {schema}.idempotency_keys
                (tenant_id, user_id, key, request_digest, task_id, owner_name)
                VALUES (in_tenant, in_owner, in_key, in_digest, new_id, in_owner_name)
                ON CONFLICT (tenant_id, user_id, key) DO UPDATE SET
                    request_digest = excluded.request_digest, task_id = excluded.task_id,
                    owner_name = excluded.owner_name, created_at = excluded.created_at;
        END IF;
        RETURN QUERY SELECT new_id, new_count, in_owner_name, 'created'::text;
    END IF;
END $$;

-- Deletes some expired keys and returns their number.
CREATE OR REPLACE FUNCTION {schema}.forget_keys(in_tenant uuid, in_limit bigint)
RETURNS TABLE (deleted bigint)
LANGUAGE plpgsql SECURITY INVOKER AS $$
DECLARE
    forgotten bigint;
BEGIN
    PERFORM set_config('app.tenant', in_tenant::text, true);
    DELETE FROM {schema}.idempotency_keys AS k
        WHERE k.tenant_id = in_tenant AND (k.user_id, k.key) IN (
            SELECT o.user_id, o.key FROM {schema}.idempotency_keys AS o
            WHERE o.tenant_id = in_tenant AND o.created_at <= now() - interval '24 hours'
            ORDER BY o.created_at LIMIT in_limit
        );
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN QUERY SELECT forgotten;
END $$;

-- Deletes the oldest tasks of a suspended tenant. After the last one, deletes its keys and its counters.
CREATE OR REPLACE FUNCTION {schema}.erase_tasks(in_tenant uuid, in_limit bigint)
RETURNS TABLE (erased bigint)
LANGUAGE plpgsql SECURITY INVOKER AS $$
DECLARE
    deleted bigint;
BEGIN
    PERFORM set_config('app.tenant', in_tenant::text, true);
    PERFORM FROM {schema}.allowed_tenants AS a
        WHERE a.tenant_id = in_tenant AND a.status = 'suspended';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the tenant is not suspended' USING ERRCODE = '55000';
    END IF;
    PERFORM FROM {schema}.tenants AS t WHERE t.tenant_id = in_tenant FOR UPDATE;
    DELETE FROM {schema}.tasks AS t WHERE t.tenant_id = in_tenant AND t.id <= (
        SELECT max(o.id) FROM (
            SELECT s.id FROM {schema}.tasks AS s WHERE s.tenant_id = in_tenant
            ORDER BY s.id LIMIT in_limit
        ) AS o
    );
    GET DIAGNOSTICS deleted = ROW_COUNT;
    UPDATE {schema}.tenants AS t SET task_count = t.task_count - deleted
        WHERE t.tenant_id = in_tenant;
    IF deleted = 0 THEN
        DELETE FROM {schema}.idempotency_keys AS k WHERE k.tenant_id = in_tenant;
        DELETE FROM {schema}.tenants AS t WHERE t.tenant_id = in_tenant;
    END IF;
    RETURN QUERY SELECT deleted;
END $$;
