//! Validation of settings, and the documentation of each one in `.env.example` and in the guide.

use std::{collections::BTreeSet, fs, path::Path};

use tenant_tasks::config::{Config, env_file::read_variables, settings::Variables, variables};

use crate::support::{app::settings, users::PERSONAL_ACCOUNTS};

const AUTHORITY: &str = "http://127.0.0.1:1";
const GUID: &str = "44444444-4444-4444-8444-444444444444";
const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// Invalid values. Each causes exactly one problem.
const INVALID: &[(&str, &str)] = &[
    ("AZURE_API_CLIENT_ID", ""),
    ("AZURE_API_CLIENT_ID", "s3cret"),
    (
        "AZURE_API_CLIENT_ID",
        "api://44444444-4444-4444-8444-444444444444",
    ),
    ("AZURE_HOME_TENANT_ID", "contoso.onmicrosoft.com"),
    ("AZURE_HOME_TENANT_ID", PERSONAL_ACCOUNTS),
    ("AZURE_HOME_TENANT_ID", NIL),
    ("ALLOWED_TENANT_IDS", PERSONAL_ACCOUNTS),
    ("ALLOWED_TENANT_IDS", NIL),
    ("ALLOWED_TENANT_IDS", ""),
    ("ALLOWED_TENANT_IDS", ","),
    ("ALLOWED_TENANT_IDS", "contoso"),
    (
        "ALLOWED_TENANT_IDS",
        "44444444-4444-4444-8444-444444444444;55555555-5555-4555-8555-555555555555",
    ),
    ("ALLOW_ANY_TENANT", "yes"),
    ("ALLOWED_ORIGINS", "*"),
    ("ALLOWED_ORIGINS", "https://*.example"),
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
    (
        "AZURE_AUTHORITY_HOST",
        "https://user@login.microsoftonline.com",
    ),
    ("AZURE_AUTHORITY_HOST", "ftp://127.0.0.1"),
    ("AZURE_AUTHORITY_HOST", "https://login.windows.net"),
    ("AZURE_AUTHORITY_HOST", "https://sts.windows.net"),
    ("AZURE_AUTHORITY_HOST", "https://login.microsoft.com"),
    ("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.de"),
    ("AZURE_AUTHORITY_HOST", "https://contoso.b2clogin.com"),
    ("AZURE_AUTHORITY_HOST", "https://contoso.ciamlogin.com"),
    ("REQUIRED_SCOPE", "access_as_user offline_access"),
    (
        "REQUIRED_SCOPE",
        "api://44444444-4444-4444-8444-444444444444/access_as_user",
    ),
    ("REQUIRED_SCOPE", "access_as_user,offline_access"),
    ("REQUIRED_SCOPE", ".default"),
    ("REQUIRED_SCOPE", "quote\""),
    ("PORT", "http"),
    ("PORT", "65536"),
    ("MAX_CONNECTIONS", "0"),
    ("MAX_TASKS_PER_TENANT", "-1"),
    ("TENANT_RATE_LIMIT", "0.5"),
    ("RUST_LOG", "tenant_tasks=loud"),
    ("RUST_LOG", "verbose"),
    ("RUST_LOG", "WARNING"),
    ("RUST_LOG", "info,tenant_tasks"),
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
        "postgres://user:s3cret@db/tasks?sslmode=prefer",
    ),
    (
        "DATABASE_URL",
        "postgres://user:s3cret@localhost/tasks?sslmode=allow",
    ),
    ("MAX_DATABASE_CONNECTIONS", "0"),
    ("METRICS_ADDR", "localhost"),
    ("METRICS_ADDR", "127.0.0.1"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://127.0.0.1:4318"),
    ("DOCS", "no"),
    ("AZURE_SPA_CLIENT_ID", "tenant-tasks-spa"),
];

#[test]
fn database_url_errors_name_parameter_and_encoding() {
    for (url, text) in [
        ("postgres://user:a@b@db/tasks", "@ as %40"),
        ("postgres://user:a?b@db/tasks", "@ as %40"),
        (
            "postgres://u@db/tasks?gssencmode=disable",
            "the parameter gssencmode,",
        ),
        ("postgres://u@db/tasks?sslcert=x", "the parameter sslcert,"),
        (
            "postgres://u@db/tasks?target_session=x",
            "the parameter target_session,",
        ),
        (
            "postgres://u@db/tasks?pgbouncer=true",
            "the parameter pgbouncer,",
        ),
    ] {
        let error = Config::parse(&settings(AUTHORITY, &[("DATABASE_URL", url)]));
        let error = error.unwrap_err().to_string();
        assert!(
            error.starts_with("DATABASE_URL ") && error.contains(text),
            "{error}"
        );
    }
}

#[test]
fn invalid_setting_is_named_without_its_value() {
    assert!(Config::parse(&settings(AUTHORITY, &[])).is_ok());
    for &(variable, value) in INVALID {
        let variables = settings(AUTHORITY, &[(variable, value)]);
        let error = Config::parse(&variables).expect_err(variable).to_string();
        let problems = Config::problems(variables);
        assert_eq!(problems.len(), 1, "{variable}={value}: {problems:?}");
        assert!(error.starts_with(variable), "{variable}={value}: {error}");
        assert!(
            !error.contains("s3cret") && !error.contains('\n'),
            "{variable}={value}: {error}"
        );
    }
}

#[test]
fn trace_exporter_needs_the_feature_otlp() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let config = Config::parse(&settings(AUTHORITY, &[endpoint]));
    if cfg!(feature = "otlp") {
        assert!(config.is_ok());
    } else {
        let error = config.unwrap_err().to_string();
        assert!(error.contains("without --features otlp"), "{error}");
    }
}

#[test]
fn alternative_setting_formats_are_accepted() {
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
fn old_china_host_means_the_present_one() {
    let parse = |host| {
        Config::parse(&settings(host, &[]))
            .unwrap()
            .tokens
            .authority
    };
    let present = parse("https://login.partner.microsoftonline.cn");
    assert_eq!(parse("https://login.chinacloudapi.cn/"), present);
    assert!(present.is_known());
    assert!(!parse("https://login.contoso.example").is_known());
}

#[test]
fn log_levels_and_directives_are_accepted() {
    for filter in [
        "WARN",
        "warn,tenant_tasks::audit=info",
        "tenant_tasks[request]=debug",
        "off",
    ] {
        assert!(
            Config::parse(&settings(AUTHORITY, &[("RUST_LOG", filter)])).is_ok(),
            "{filter}"
        );
    }
}

#[test]
fn host_may_be_in_brackets_and_origins_may_be_empty() {
    let config = settings(AUTHORITY, &[("HOST", "[::1]"), ("ALLOWED_ORIGINS", "")]);
    let config = Config::parse(&config).unwrap();
    assert_eq!(
        (config.host.as_str(), config.allowed_origins.len()),
        ("::1", 0)
    );
}

#[test]
fn home_tenant_is_allowed_unless_a_list_is_set() {
    let mut variables = settings(AUTHORITY, &[("AZURE_HOME_TENANT_ID", GUID)]);
    variables.remove("ALLOWED_TENANT_IDS");
    let allows = |variables: &Variables| {
        Config::parse(variables)
            .unwrap()
            .access
            .allows(GUID.parse().unwrap())
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

fn read_document(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn guide_has_a_row_for_every_setting() {
    let guide = read_document("src/docs/configuration.md");
    // The table of the libraries' own variables has no column for a default.
    let rows = guide
        .lines()
        .filter(|line| line.matches('|').count() == 4)
        .filter_map(|line| line.strip_prefix("| `"));
    let names: BTreeSet<_> = rows
        .filter_map(|row| Some(row.split_once('`')?.0))
        .collect();
    assert_eq!(names, variables());
}

#[test]
fn env_example_documents_every_setting_and_parses() {
    let text = read_document(".env.example");
    let known = variables();
    let mut names = BTreeSet::new();
    let mut previous = "";
    for line in text.lines() {
        // ALLOWED_TENANT_IDS is commented out, because neither an empty value nor any other suits all operators.
        if let Some((name, _)) = line.trim_start_matches("# ").split_once('=')
            && known.contains(name)
        {
            assert!(previous.starts_with("# "), "missing comment above {line}");
            names.insert(name);
        }
        previous = line;
    }
    assert_eq!(names, known);

    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".env"), &text).unwrap();
    let mut variables = read_variables(directory.path()).unwrap();
    assert!(
        variables.keys().all(|name| known.contains(name.as_str())),
        "the file contains an unknown setting"
    );
    // The file is complete after these two values are filled in.
    for variable in ["AZURE_API_CLIENT_ID", "AZURE_HOME_TENANT_ID"] {
        variables.insert(variable.to_owned(), GUID.to_owned());
    }
    Config::parse(&variables).unwrap();
}

#[test]
fn invalid_env_file_line_is_reported_by_number() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(".env");
    for line in [
        "s3cret without a name",
        "s3cret without a name # with a comment",
        "NAME='s3cret without a closing quote",
        "ALLOWED_TENANT_IDS=s3cret, s3cret",
        "NAME=s3cret\\s3cret",
    ] {
        fs::write(&file, format!("# comment\nX=\"1\n2\"\n{line}\nPORT=8000\n")).unwrap();
        let error = read_variables(directory.path()).unwrap_err().to_string();
        let expected = ".env, line 4: not of the form NAME=value. \
                        Quote a value that contains spaces or backslashes";
        assert_eq!(error, expected, "{line}");
    }
    fs::write(&file, "\u{feff}PORT=9000\n").unwrap();
    assert_eq!(read_variables(directory.path()).unwrap()["PORT"], "9000");
    fs::write(&file, b"\xff\xfeP\0O\0").unwrap();
    let error = read_variables(directory.path()).unwrap_err().to_string();
    assert_eq!(error, "cannot read .env: it is UTF-16: save it as UTF-8");
}
