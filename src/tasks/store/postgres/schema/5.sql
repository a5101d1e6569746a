-- Changes of the registry in statements that Citus executes on reference tables. The results are the same.

-- Citus does not execute this INSERT in a function in the language SQL, because it has parameters.
CREATE OR REPLACE FUNCTION {schema}.log_change(in_action text, in_subject text, in_by text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    last bigint;
BEGIN
    SELECT coalesce(max(l.version), 0) INTO last FROM {schema}.registry_log AS l;
    INSERT INTO {schema}.registry_log (version, action, subject, by)
        VALUES (last + 1, in_action, in_subject, in_by);
END $$;

-- A tenant that only the settings list can be suspended too. DO UPDATE may not call now() on Citus.
CREATE OR REPLACE FUNCTION {schema}.set_tenant_status(in_id uuid, in_status text, in_by text)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    old text;
BEGIN
    PERFORM {schema}.lock_registry();
    SELECT t.status INTO old FROM {schema}.allowed_tenants AS t WHERE t.tenant_id = in_id;
    IF old = in_status THEN
        RETURN 'unchanged';
    ELSIF old IS NOT NULL THEN
        UPDATE {schema}.allowed_tenants AS t SET status = in_status, status_since = now()
            WHERE t.tenant_id = in_id;
    ELSIF in_status = 'active' THEN
        RETURN 'unknown';
    ELSE
        INSERT INTO {schema}.allowed_tenants (tenant_id, status, added_by)
            VALUES (in_id, in_status, in_by);
    END IF;
    PERFORM {schema}.log_change('tenant ' || in_status, in_id::text, in_by);
    RETURN 'changed';
END $$;
