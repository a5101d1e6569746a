-- The tasks of all tenants. Every key starts with tenant_id, so tables can be distributed by it.

CREATE TABLE tenants (
    tenant_id uuid PRIMARY KEY,
    last_task_id bigint NOT NULL,
    task_count bigint NOT NULL,
    max_tasks bigint NOT NULL,
    CONSTRAINT tenants_task_count_within_max CHECK (task_count <= max_tasks)
) WITH (fillfactor = 50);

CREATE TABLE tasks (
    tenant_id uuid NOT NULL,
    id bigint NOT NULL CHECK (id > 0),
    user_id uuid NOT NULL,
    completed boolean NOT NULL,
    owner_name text NOT NULL,
    title text NOT NULL CHECK (char_length(title) BETWEEN 1 AND 500),
    PRIMARY KEY (tenant_id, id)
) WITH (fillfactor = 90);

CREATE INDEX tasks_of_user ON tasks (tenant_id, user_id, id);

-- The policies bind every role, including the owner, except superusers and roles with BYPASSRLS.
-- After a transaction that set app.tenant, it is '' and not NULL. With nullif, both match no row.
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;

ALTER TABLE tenants FORCE ROW LEVEL SECURITY;

CREATE POLICY tenants_of_setting ON tenants
    USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);

ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;

ALTER TABLE tasks FORCE ROW LEVEL SECURITY;

CREATE POLICY tasks_of_setting ON tasks
    USING (tenant_id = nullif(current_setting('app.tenant', true), '')::uuid);
