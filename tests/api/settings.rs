//! Settings: what stops the start, and that `.env.example` tells of every one.

use std::{collections::BTreeSet, fs, path::Path};

use tenant_tasks::config::{Config, VARIABLES, Variables, read_variables};

use crate::support::app::settings;

const AUTHORITY: &str = "http://127.0.0.1:1";
const GUID: &str = "44444444-4444-4444-8444-444444444444";

#[test]
fn a_wrong_setting_stops_the_start_and_is_named_but_not_repeated() {
    assert!(Config::parse(&settings(AUTHORITY, &[])).is_ok());
    for (variable, value) in [
        ("AZURE_API_CLIENT_ID", ""),
        ("AZURE_API_CLIENT_ID", "s3cret"),
        (
            "AZURE_API_CLIENT_ID",
            "api://44444444-4444-4444-8444-444444444444",
        ),
        ("AZURE_HOME_TENANT_ID", "contoso.onmicrosoft.com"),
        ("ALLOWED_TENANT_IDS", ""),
        ("ALLOWED_TENANT_IDS", ","),
        ("ALLOWED_TENANT_IDS", "contoso"),
        (
            "ALLOWED_TENANT_IDS",
            "44444444-4444-4444-8444-444444444444;55555555-5555-4555-8555-555555555555",
        ),
        ("ALLOW_ANY_TENANT", "yes"),
        ("ALLOWED_ORIGINS", "*"),
        ("ALLOWED_ORIGINS", "localhost:3000"),
        ("ALLOWED_ORIGINS", "https://tasks.example/"),
        ("ALLOWED_ORIGINS", "https://tasks.example/app"),
        ("ALLOWED_ORIGINS", "https://Tasks.example"),
        ("ALLOWED_ORIGINS", "https://tasks.example:443"),
        ("ALLOWED_ORIGINS", "null"),
        ("AZURE_AUTHORITY_HOST", "login.microsoftonline.us"),
        ("AZURE_AUTHORITY_HOST", "http://login.microsoftonline.com"),
        (
            "AZURE_AUTHORITY_HOST",
            "https://login.microsoftonline.com/common",
        ),
        (
            "AZURE_AUTHORITY_HOST",
            "https://user:s3cret@login.microsoftonline.com",
        ),
        ("AZURE_AUTHORITY_HOST", "ftp://127.0.0.1"),
        ("REQUIRED_SCOPE", "access_as_user offline_access"),
        ("REQUIRED_SCOPE", "quote\""),
        ("PORT", "http"),
        ("PORT", "65536"),
        ("MAX_CONNECTIONS", "0"),
        ("MAX_TASKS_PER_TENANT", "-1"),
        ("TENANT_RATE_LIMIT", "0.5"),
        ("RUST_LOG", "tenant_tasks=loud"),
        ("LOG_FORMAT", "xml"),
        ("DATABASE_URL", "s3cret"),
        ("DATABASE_URL", "mysql://user:s3cret@db/tasks"),
        ("DATABASE_URL", "postgres://user:s3cret@db:port/tasks"),
        ("DATABASE_URL", "postgres://:s3cret@db/tasks"),
        ("DATABASE_URL", "postgres://user:s3cret@/tasks"),
        (
            "DATABASE_URL",
            "postgres://user:s3cret@db/tasks?sslmode=s3cret",
        ),
        (
            "DATABASE_URL",
            "postgres://user:s3cret@db/tasks?sslcert=s3cret",
        ),
        (
            "DATABASE_URL",
            "postgres://user:s3cret@db/tasks?sslrootcert=/nowhere/s3cret",
        ),
        (
            "DATABASE_URL",
            "postgres://user:s3cret@db/tasks?sslrootcert=/dev/null",
        ),
        (
            "DATABASE_URL",
            "postgres://user:s3cret@db/tasks?sslrootcert=system&sslmode=require",
        ),
        ("MAX_DATABASE_CONNECTIONS", "0"),
        ("METRICS_ADDR", "localhost"),
        ("METRICS_ADDR", "127.0.0.1"),
        ("DOCS", "no"),
        ("AZURE_SPA_CLIENT_ID", "tenant-tasks-spa"),
    ] {
        let error = Config::parse(&settings(AUTHORITY, &[(variable, value)]))
            .expect_err(variable)
            .to_string();
        assert!(error.starts_with(variable), "{variable}={value}: {error}");
        assert!(
            !error.contains("s3cret") && !error.contains('\n'),
            "{variable}={value}: {error}"
        );
    }
}

#[test]
fn a_setting_may_be_written_in_more_than_one_way() {
    let list = format!(" {GUID} ,{},", GUID.to_uppercase());
    for (variable, value) in [
        (
            "AZURE_API_CLIENT_ID",
            "A0A0A0A0-0000-4000-8000-00000000A0A0",
        ),
        ("ALLOWED_TENANT_IDS", list.as_str()),
        ("ALLOW_ANY_TENANT", "TRUE"),
        (
            "ALLOWED_ORIGINS",
            "http://localhost:3000,https://tasks.example, http://127.0.0.1:5173",
        ),
        ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
        ("AZURE_AUTHORITY_HOST", "http://localhost:8001"),
        ("AZURE_AUTHORITY_HOST", "http://[::1]:8001"),
        ("REQUIRED_SCOPE", ""),
        ("PORT", "0"),
        ("RUST_LOG", "info,tenant_tasks=debug"),
        ("LOG_FORMAT", "json"),
        ("DOCS", "off"),
        ("AZURE_SPA_CLIENT_ID", GUID),
        ("DATABASE_URL", ""),
        (
            "DATABASE_URL",
            "postgresql://user:pass%40word@db/tasks?sslmode=require&connect_timeout=1",
        ),
        (
            "DATABASE_URL",
            "postgres://user@db1:5432,db2:5433/tasks?sslmode=disable&target_session_attrs=read-write",
        ),
        (
            "DATABASE_URL",
            "postgres://user@/tasks?host=/var/run/postgresql&options=-csearch_path%3Da%20b",
        ),
        (
            "DATABASE_URL",
            "postgres://user@%2Fvar%2Frun%2Fpostgresql/tasks",
        ),
        ("MAX_DATABASE_CONNECTIONS", "1"),
    ] {
        let config = Config::parse(&settings(AUTHORITY, &[(variable, value)]));
        assert!(config.is_ok(), "{variable}={value}: {:?}", config.err());
    }
}

#[test]
fn the_home_tenant_is_allowed_unless_a_list_says_who_is() {
    let mut variables = settings(AUTHORITY, &[("AZURE_HOME_TENANT_ID", GUID)]);
    variables.remove("ALLOWED_TENANT_IDS");
    let allows = |variables: &Variables| {
        Config::parse(variables)
            .unwrap()
            .access
            .tenants
            .allow(GUID.parse().unwrap())
    };
    assert!(allows(&variables));
    assert!(!allows(&settings(
        AUTHORITY,
        &[("AZURE_HOME_TENANT_ID", GUID)]
    )));
}

#[test]
fn sovereign_clouds_have_their_own_issuers() {
    let tenant = GUID.parse().unwrap();
    for (host, v1, v2) in [
        (
            "https://login.microsoftonline.com",
            "https://sts.windows.net",
            "https://login.microsoftonline.com",
        ),
        (
            "https://login.microsoftonline.us",
            "https://sts.windows.net",
            "https://login.microsoftonline.us",
        ),
        (
            "https://login.partner.microsoftonline.cn",
            "https://sts.chinacloudapi.cn",
            "https://login.partner.microsoftonline.cn",
        ),
    ] {
        let config = Config::parse(&settings(host, &[])).unwrap();
        let authority = config.tokens.authority;
        assert_eq!(authority.v1_issuer(tenant), format!("{v1}/{GUID}/"));
        assert_eq!(authority.v2_issuer(tenant), format!("{v2}/{GUID}/v2.0"));
        assert_eq!(
            authority.keys_url(tenant),
            format!("{host}/{GUID}/discovery/v2.0/keys")
        );
    }
}

#[test]
fn the_example_file_has_every_setting_with_one_comment_each_and_parses() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".env.example")).unwrap();
    let mut names = BTreeSet::new();
    let mut previous = "";
    for line in text.lines() {
        // One has no value that would do for everybody, not even an empty one.
        if let Some((name, _)) = line.trim_start_matches("# ").split_once('=')
            && VARIABLES.contains(&name)
        {
            assert!(previous.starts_with("# "), "no comment above {line}");
            names.insert(name);
        }
        previous = line;
    }
    assert_eq!(names, VARIABLES.into());

    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".env"), &text).unwrap();
    let mut variables = read_variables(directory.path()).unwrap();
    assert!(
        variables
            .keys()
            .all(|name| VARIABLES.contains(&name.as_str())),
        "in the file only settings"
    );
    // What its comments tell a newcomer to fill in is all that is needed.
    for variable in ["AZURE_API_CLIENT_ID", "AZURE_HOME_TENANT_ID"] {
        variables.insert(variable.to_owned(), GUID.to_owned());
    }
    Config::parse(&variables).unwrap();
}

#[test]
fn a_line_of_the_file_that_makes_no_sense_is_named_by_its_number() {
    let directory = tempfile::tempdir().unwrap();
    for line in [
        "s3cret without a name",
        "s3cret without a name # and a comment",
        "NAME='s3cret without an end",
    ] {
        fs::write(
            directory.path().join(".env"),
            format!("# comment\nPORT=8000\n\n{line}\n"),
        )
        .unwrap();
        let error = read_variables(directory.path()).unwrap_err().to_string();
        assert_eq!(error, ".env, line 4: not of the form NAME=value", "{line}");
    }
}
