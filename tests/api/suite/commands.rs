//! The commands other than `serve`: valid and invalid input, output and exit codes.

#![expect(
    clippy::disallowed_methods,
    reason = "the time until a change takes effect is measured in real time"
)]

use std::{
    fs,
    net::TcpListener,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{Method, StatusCode};
use serde_json::Value;
use tenant_tasks::clock::SystemClock;
use tokio::task::JoinSet;

use crate::{
    suite::service::{Service, command},
    support::{
        app::{answer, listen},
        entra::{KeysResponse, MockEntra},
        users::{ADMIN, API_CLIENT_ID, CONTOSO, EDITOR, FABRIKAM, NORTHWIND},
    },
};

/// Runs the binary with `file` as its `.env`. Returns standard output, standard error, the exit code
/// and the content of `.env` afterwards.
pub(crate) fn run(
    arguments: &[&str],
    file: Option<&str>,
    settings: &[(&str, &str)],
) -> (String, String, Option<i32>, String) {
    let (mut command, directory) = command(settings);
    if let Some(file) = file {
        fs::write(directory.path().join(".env"), file).unwrap();
    }
    let output = command
        .args(arguments)
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    let env_file = fs::read_to_string(directory.path().join(".env")).unwrap_or_default();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        text(output.stdout),
        text(output.stderr),
        output.status.code(),
        env_file,
    )
}

#[test]
fn every_command_has_help_and_binary_has_version() {
    for (arguments, line) in [
        (&["--help"][..], "Usage: tenant-tasks [COMMAND]"),
        (&["serve", "--help"], "Usage: tenant-tasks serve"),
        (
            &["tenants", "--help"],
            "Usage: tenant-tasks tenants <COMMAND>",
        ),
        (
            &["tenants", "add", "--help"],
            "Usage: tenant-tasks tenants add [OPTIONS] <TENANT_ID>...",
        ),
        (
            &["tenants", "remove", "--help"],
            "Usage: tenant-tasks tenants remove [OPTIONS] <TENANT_ID>...",
        ),
        (
            &["tenants", "list", "--help"],
            "Usage: tenant-tasks tenants list",
        ),
        (&["keys", "--help"], "Usage: tenant-tasks keys <COMMAND>"),
        (&["check", "--help"], "Usage: tenant-tasks check"),
        (
            &["token", "inspect", "--help"],
            "Usage: tenant-tasks token inspect",
        ),
        (&["health", "--help"], "Usage: tenant-tasks health"),
    ] {
        let (stdout, _, code, _) = run(arguments, None, &[]);
        assert!(
            stdout.contains(line) && code == Some(0),
            "{arguments:?}: {stdout}"
        );
    }
    let version = concat!("tenant-tasks ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(run(&["--version"], None, &[]).0, version);
}

#[test]
fn wrong_usage_is_explained_and_exits_with_2() {
    for (arguments, message) in [
        (&["tenant"][..], "unrecognized subcommand 'tenant'"),
        (&["--port", "1"], "unexpected argument '--port'"),
        (&["tenants", "add"], "<TENANT_ID>..."),
        (
            &["tenants", "add", "contoso"],
            "invalid value 'contoso' for '<TENANT_ID>...': not a hyphenated GUID",
        ),
        (&["token"], "Usage: tenant-tasks token <COMMAND>"),
    ] {
        let (_, stderr, code, _) = run(arguments, None, &[]);
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
        assert_eq!(code, Some(2), "{arguments:?}");
    }
}

#[test]
fn tenants_are_listed_added_and_removed() {
    let (contoso, fabrikam) = (CONTOSO.id, FABRIKAM.id);
    let file = format!("# a comment\nAZURE_HOME_TENANT_ID={contoso}\n");
    let (stdout, _, code, _) = run(&["tenants", "list"], Some(&file), &[]);
    assert_eq!((stdout, code), (format!("{contoso}\n"), Some(0)));

    let (stdout, _, code, env_file) = run(&["tenants", "add", fabrikam, contoso], Some(&file), &[]);
    assert!(
        stdout.starts_with(&format!(
            "{fabrikam}: added\n{contoso}: already on the list\n"
        )),
        "{stdout}"
    );
    let both = format!("{file}ALLOWED_TENANT_IDS={contoso},{fabrikam}\n");
    assert_eq!(
        (code, env_file),
        (Some(0), both.clone()),
        "the home tenant is still listed"
    );

    let (stdout, _, code, env_file) = run(&["tenants", "remove", fabrikam], Some(&both), &[]);
    assert!(stdout.contains("removed"), "{stdout}");
    assert_eq!(
        (code, env_file),
        (Some(0), format!("{file}ALLOWED_TENANT_IDS={contoso}\n"))
    );

    let (stdout, _, code, env_file) = run(&["tenants", "add", contoso], Some(&both), &[]);
    assert_eq!(
        (stdout, code, env_file),
        (format!("{contoso}: already on the list\n"), Some(0), both)
    );
}

#[test]
fn invalid_tenant_change_leaves_env_file_unchanged() {
    let (contoso, fabrikam) = (CONTOSO.id, FABRIKAM.id);
    let one = format!("ALLOWED_TENANT_IDS={contoso}\n");
    let open = format!("{one}ALLOW_ANY_TENANT=true\n");
    let unsupported = format!("T={contoso}\nALLOWED_TENANT_IDS=$T,{fabrikam}\n");
    let invalid = format!("{one}DOCS=x\n");
    let in_environment = [("ALLOWED_TENANT_IDS", contoso)];
    let none: &[(&str, &str)] = &[];
    for (arguments, file, settings, message) in [
        (
            ["tenants", "remove", contoso],
            Some(&*one),
            none,
            "the list would be empty",
        ),
        (
            ["tenants", "remove", fabrikam],
            Some(&one),
            none,
            "is not on the list",
        ),
        (
            ["tenants", "remove", contoso],
            Some(&open),
            none,
            "ALLOW_ANY_TENANT=true allows every tenant",
        ),
        (
            ["tenants", "add", fabrikam],
            Some(&open),
            none,
            "ALLOW_ANY_TENANT=true allows every tenant",
        ),
        (
            ["tenants", "remove", contoso],
            Some(&unsupported),
            none,
            ".env, line 2: write ALLOWED_TENANT_IDS=id,id on one line",
        ),
        (
            ["tenants", "add", fabrikam],
            Some(&one),
            &in_environment,
            "is set in the environment",
        ),
        (
            ["tenants", "add", fabrikam],
            Some("ALLOWED_TENANT_IDS=x\n"),
            none,
            "entry 1 is not one",
        ),
        (
            ["tenants", "add", fabrikam],
            None,
            none,
            "there is no .env in this folder",
        ),
        (
            ["tenants", "add", fabrikam],
            Some(&invalid),
            none,
            "DOCS must be on or off. Fix this first",
        ),
    ] {
        let (_, stderr, code, env_file) = run(&arguments, file, settings);
        assert!(
            stderr.contains(message) && stderr.lines().count() == 1,
            "{arguments:?}: {stderr}"
        );
        assert_eq!(
            (code, env_file.as_str()),
            (Some(1), file.unwrap_or_default()),
            "{arguments:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_reports_all_setting_and_key_fetch_problems() {
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let allowed = format!("{},{}", CONTOSO.id, FABRIKAM.id);
    let good = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_AUTHORITY_HOST", &*entra.authority),
        ("ALLOWED_TENANT_IDS", &*allowed),
    ];
    let (stdout, _, code, _) = run(&["check"], Some("ALLOWED_TENANTS=x\n"), &good);
    let both = |keys: &str| {
        format!(
            "note      .env sets ALLOWED_TENANTS, which is not a setting of this service\nok        settings\n\
             note      tasks are stored in memory and are lost when the process ends; DATABASE_URL is not set\n\
             ok        tenant {}: 2 signing keys\n{keys}",
            CONTOSO.id
        )
    };
    assert_eq!(
        (stdout, code),
        (
            both(&format!(
                "ok        tenant {}: 2 signing keys\n",
                FABRIKAM.id
            )),
            Some(0)
        )
    );

    entra.set_keys_response(FABRIKAM, KeysResponse::Status(503));
    let (stdout, _, code, _) = run(&["check"], Some("ALLOWED_TENANTS=x\n"), &good);
    let wrong = format!(
        "WRONG     tenant {}: no signing keys: status 503 Service Unavailable\n",
        FABRIKAM.id
    );
    assert_eq!((stdout, code), (both(&wrong), Some(1)));

    let bad = [
        ("ALLOWED_TENANT_IDS", "contoso"),
        ("PORT", "http"),
        ("DATABASE_URL", "s3cret"),
    ];
    let (stdout, _, code, _) = run(&["check"], None, &bad);
    for variable in [
        "AZURE_API_CLIENT_ID is not set",
        "ALLOWED_TENANT_IDS must",
        "PORT must",
        "DATABASE_URL must",
    ] {
        assert!(
            stdout.contains(&format!("WRONG     {variable}")),
            "{stdout}"
        );
    }
    assert!(!stdout.contains("s3cret"), "{stdout}");
    assert_eq!(code, Some(1));
}

#[test]
fn check_prints_notes_on_variables_and_authority() {
    let settings = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("ALLOW_ANY_TENANT", "true"),
        ("AZURE_AUTHORITY_HOST", "https://login.contoso.example"),
        // Empty: this does not hide the value in `.env`.
        ("PORT", ""),
    ];
    let file = "https_proxy=http://proxy.example\nPORT=eighty\n";
    let (stdout, _, code, _) = run(&["check"], Some(file), &settings);
    assert_eq!(code, Some(1));
    for line in [
        "note      .env sets https_proxy, which libraries read from the environment only. Set it there",
        "WRONG     PORT must be a whole number from 0 to 65535",
    ] {
        assert!(stdout.contains(line), "{line}: {stdout}");
    }
    let settings = [&settings[..], &[("METRICS_ADDR", "0.0.0.0:9090")]].concat();
    let (stdout, _, _, _) = run(&["check"], None, &settings);
    for note in [
        "note      ALLOW_ANY_TENANT=true: users of any tenant may sign in",
        "note      AZURE_AUTHORITY_HOST is not a known cloud; its tokens may be rejected",
        "note      METRICS_ADDR is neither loopback nor private",
    ] {
        assert!(stdout.contains(note), "{note}: {stdout}");
    }
}

/// A log collector parses every line, even if the service does not start.
#[test]
fn failed_start_is_logged_as_json() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let json = ("LOG_FORMAT", "json");
    let client_id = ("AZURE_API_CLIENT_ID", API_CLIENT_ID);
    let tenants = ("ALLOWED_TENANT_IDS", CONTOSO.id);
    for (settings, error) in [
        (vec![json], "AZURE_API_CLIENT_ID"),
        (
            vec![json, client_id, tenants, ("PORT", &*port)],
            "HOST and PORT",
        ),
    ] {
        let (_, stderr, code, _) = run(&[], None, &settings);
        assert_eq!(code, Some(1));
        let lines = stderr.lines().map(serde_json::from_str);
        let lines: Vec<Value> = lines.collect::<Result<_, _>>().expect(&stderr);
        let mut errors = lines.iter().filter(|line| line["level"] == "ERROR");
        let failure = errors.next().unwrap();
        assert_eq!(failure["message"], "the service did not start");
        assert!(
            failure["error"].as_str().unwrap().contains(error),
            "{stderr}"
        );
        assert!(errors.next().is_none(), "{stderr}");
    }
}

#[test]
fn output_that_cannot_be_written_is_not_a_panic() {
    let settings = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_AUTHORITY_HOST", "http://127.0.0.1:1"),
        ("ALLOWED_TENANT_IDS", CONTOSO.id),
    ];
    for arguments in [&["check"][..], &["tenants", "list"]] {
        let run_into = |stdout: Stdio| {
            let (mut command, _directory) = command(&settings);
            let output = command.args(arguments).stdout(stdout).output().unwrap();
            (
                output.status.code(),
                String::from_utf8(output.stderr).unwrap(),
            )
        };
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (code, stderr) = run_into(writer.into());
        assert_eq!(code, Some(0), "{arguments:?}: {stderr}");
        assert!(
            !stderr.contains("panicked") && !stderr.contains("pipe"),
            "{stderr}"
        );

        let full = fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let (code, stderr) = run_into(full.into());
        assert_eq!(code, Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("tenant-tasks: No space left on device"),
            "{stderr}"
        );
    }
}

#[test]
fn personal_accounts_cannot_be_added() {
    for tenant in [
        "9188040d-6c67-4c5b-b112-36a304b66dad",
        "00000000-0000-0000-0000-000000000000",
    ] {
        let file = format!("ALLOWED_TENANT_IDS={}\n", CONTOSO.id);
        let (_, stderr, code, env_file) = run(&["tenants", "add", tenant], Some(&file), &[]);
        assert_eq!((code, env_file), (Some(2), file), "{stderr}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_command_reports_health_of_local_service() {
    let service = Service::start(&[]);
    let port = service.address.rsplit_once(':').unwrap().1.to_owned();
    let settings = [
        ("AZURE_API_CLIENT_ID", API_CLIENT_ID),
        ("AZURE_HOME_TENANT_ID", CONTOSO.id),
        ("PORT", &*port),
    ];
    for host in ["127.0.0.1", "0.0.0.0", "localhost"] {
        let (_, stderr, code, _) = run(
            &["health"],
            None,
            &[&settings[..], &[("HOST", host)]].concat(),
        );
        assert_eq!(code, Some(0), "{host}: {stderr}");
    }
    // A running service keeps its settings, so invalid new ones must not make a supervisor restart it.
    let address = [("PORT", &*port)];
    for invalid in ["ALLOWED_TENANT_IDS=x\n", "no assignment\n"] {
        assert_eq!(
            run(&["health"], Some(invalid), &address).2,
            Some(0),
            "{invalid}"
        );
    }
    drop(service);
    let (_, stderr, code, _) = run(&["health"], None, &settings);
    assert_eq!(
        (stderr, code),
        (
            format!("tenant-tasks: http://127.0.0.1:{port}/health does not respond\n"),
            Some(1)
        )
    );
}

/// An operator adds and removes a tenant while users of other tenants send requests.
#[tokio::test(flavor = "multi_thread")]
async fn tenant_change_under_load_does_not_affect_others() {
    let entra = MockEntra::start(listen().await, Arc::new(SystemClock::new()));
    let file = format!(
        "# allowed tenants\nALLOWED_TENANT_IDS={},{}\n",
        CONTOSO.id, FABRIKAM.id
    );
    let service = Service::start_with_file(&file, &[("AZURE_AUTHORITY_HOST", &entra.authority)]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/api/me", service.address);
    let (is_done, succeeded) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut load = JoinSet::new();
    for (tenant, user) in [
        (CONTOSO, ADMIN),
        (CONTOSO, EDITOR),
        (FABRIKAM, ADMIN),
        (FABRIKAM, EDITOR),
    ] {
        let (client, url, token) = (client.clone(), url.clone(), entra.v1(tenant, user).sign());
        let (is_done, succeeded) = (Arc::clone(&is_done), Arc::clone(&succeeded));
        load.spawn(async move {
            while !is_done.load(Ordering::Relaxed) {
                let answer = answer(client.request(Method::GET, &url).bearer_auth(&token)).await;
                assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
                succeeded.fetch_add(1, Ordering::Relaxed);
            }
        });
    }

    let token = entra.v1(NORTHWIND, ADMIN).sign();
    let me = async || {
        answer(client.request(Method::GET, &url).bearer_auth(&token))
            .await
            .status
    };
    let mut timings = Vec::new();
    for _ in 0..5 {
        for (command, expected) in [("add", StatusCode::OK), ("remove", StatusCode::FORBIDDEN)] {
            let started = Instant::now();
            let output = service.command(&["tenants", command, NORTHWIND.id]);
            assert!(output.contains("applies it within two seconds"), "{output}");
            while me().await != expected {
                assert!(
                    started.elapsed() < Duration::from_secs(10),
                    "{command} has no effect"
                );
            }
            timings.push((command, started.elapsed()));
            let tenants = service.command(&["tenants", "list"]);
            assert_eq!(
                tenants.contains(NORTHWIND.id),
                command == "add",
                "{tenants}"
            );
        }
    }
    is_done.store(true, Ordering::Relaxed);
    while let Some(result) = load.join_next().await {
        result.expect("requests of other tenants succeed");
    }
    for action in ["add", "remove"] {
        let mut times: Vec<_> = timings
            .iter()
            .filter(|(command, _)| *command == action)
            .map(|(_, time)| *time)
            .collect();
        times.sort();
        println!(
            "tenants {action}: took effect {:?} to {:?} after the command started",
            times[0],
            times[times.len() - 1]
        );
    }
    println!(
        "{} requests of other tenants, none failed",
        succeeded.load(Ordering::Relaxed)
    );
    assert!(succeeded.load(Ordering::Relaxed) > 100);
    assert_eq!(service.file(), file, "the file is as before");
}
