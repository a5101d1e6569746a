-- One function for each operation, so that a request is one statement and one transaction. The first
-- argument is the tenant: a database distributed by tenant runs the call where the tenant's rows are.
-- Empty lines separate the statements, which are executed one by one. {schema} is the tables' schema.

-- A statement without a tenant is an error and not an empty list: 42704 on a new connection, and 22P02
-- on a used one, where the setting is ''.
ALTER POLICY tenants_of_setting ON {schema}.tenants
    USING (tenant_id = current_setting('app.tenant')::uuid);

ALTER POLICY tasks_of_setting ON {schema}.tasks
    USING (tenant_id = current_setting('app.tenant')::uuid);

-- Two statements, because one plan for both would not use the index on user_id.
CREATE OR REPLACE FUNCTION {schema}.list_tasks(
    in_tenant uuid, in_owner uuid, in_after bigint, in_limit bigint
) RETURNS TABLE (id bigint, user_id uuid, owner_name text, title text, completed boolean)
LANGUAGE plpgsql SECURITY INVOKER AS $$
BEGIN
    PERFORM set_config('app.tenant', in_tenant::text, true);
    IF in_owner IS NULL THEN
        RETURN QUERY SELECT t.id, t.user_id, t.owner_name, t.title, t.completed
            FROM {schema}.tasks AS t
            WHERE t.tenant_id = in_tenant AND t.id > in_after
            ORDER BY t.id LIMIT in_limit;
    ELSE
        RETURN QUERY SELECT t.id, t.user_id, t.owner_name, t.title, t.completed
            FROM {schema}.tasks AS t
            WHERE t.tenant_id = in_tenant AND t.user_id = in_owner AND t.id > in_after
            ORDER BY t.id LIMIT in_limit;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION {schema}.get_task(in_tenant uuid, in_owner uuid, in_id bigint)
RETURNS TABLE (id bigint, user_id uuid, owner_name text, title text, completed boolean)
LANGUAGE plpgsql SECURITY INVOKER AS $$
BEGIN
    PERFORM set_config('app.tenant', in_tenant::text, true);
    RETURN QUERY SELECT t.id, t.user_id, t.owner_name, t.title, t.completed
        FROM {schema}.tasks AS t
        WHERE t.tenant_id = in_tenant AND t.id = in_id
            AND (in_owner IS NULL OR t.user_id = in_owner);
END $$;

-- Returns the new id, or no row if the tenant is full. The tenant's row stays locked until the end of
-- the transaction, so ids follow the order of the commits.
CREATE OR REPLACE FUNCTION {schema}.create_task(
    in_tenant uuid, in_owner uuid, in_owner_name text, in_title text, in_completed boolean,
    in_max_tasks bigint
) RETURNS TABLE (id bigint)
LANGUAGE plpgsql SECURITY INVOKER AS $$
DECLARE
    new_id bigint;
BEGIN
    PERFORM set_config('app.tenant', in_tenant::text, true);
    INSERT INTO {schema}.tenants AS t (tenant_id, last_task_id, task_count, max_tasks)
        VALUES (in_tenant, 1, 1, in_max_tasks)
        ON CONFLICT (tenant_id) DO UPDATE SET
            last_task_id = t.last_task_id + 1, task_count = t.task_count + 1,
            max_tasks = excluded.max_tasks
            WHERE t.task_count < excluded.max_tasks
        RETURNING t.last_task_id INTO new_id;
    IF new_id IS NOT NULL THEN
        INSERT INTO {schema}.tasks (tenant_id, id, user_id, owner_name, title, completed)
            VALUES (in_tenant, new_id, in_owner, in_owner_name, in_title, in_completed);
        RETURN QUERY SELECT new_id;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION {schema}.update_task(
    in_tenant uuid, in_owner uuid, in_id bigint, in_title text, in_completed boolean
) RETURNS TABLE (id bigint, user_id uuid, owner_name text, title text, completed boolean)
LANGUAGE plpgsql SECURITY INVOKER AS $$
BEGIN
    PERFORM set_config('app.tenant', in_tenant::text, true);
    RETURN QUERY UPDATE {schema}.tasks AS t
        SET title = coalesce(in_title, t.title), completed = coalesce(in_completed, t.completed)
        WHERE t.tenant_id = in_tenant AND t.id = in_id
            AND (in_owner IS NULL OR t.user_id = in_owner)
        RETURNING t.id, t.user_id, t.owner_name, t.title, t.completed;
END $$;

-- Locks the tenant's row first, as create_task does, so that the two cannot wait for each other.
CREATE OR REPLACE FUNCTION {schema}.delete_task(in_tenant uuid, in_id bigint)
RETURNS TABLE (id bigint)
LANGUAGE plpgsql SECURITY INVOKER AS $$
BEGIN
    PERFORM set_config('app.tenant', in_tenant::text, true);
    PERFORM FROM {schema}.tenants AS t WHERE t.tenant_id = in_tenant FOR UPDATE;
    DELETE FROM {schema}.tasks AS t WHERE t.tenant_id = in_tenant AND t.id = in_id;
    IF FOUND THEN
        UPDATE {schema}.tenants AS t SET task_count = t.task_count - 1
            WHERE t.tenant_id = in_tenant;
        RETURN QUERY SELECT in_id;
    END IF;
END $$;
